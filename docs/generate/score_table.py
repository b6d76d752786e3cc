"""Write the table of the scores into docs/scores.md.

    python docs/generate/score_table.py

The lines between the two marks come from tasks/storage/scores.py; the rest of the page is written by hand.
"""

from pathlib import Path

from tasks.storage.scores import SCORES, range_of

PAGE = Path(__file__).parents[1] / "scores.md"
BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"


def table() -> str:
    """Return one row per score, in the order of the columns."""
    lines = [
        "| score | range | unit | better | stage, of | needs | file | meaning |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in SCORES:
        file = f"`{one.made_by.replace('.', '/')}.py`"
        cells = (f"`{one.name}`", range_of(one), one.unit, one.better, f"{one.stage}, {one.of}", one.needs, file)
        lines.append(f"| {' | '.join(cells)} | {one.meaning} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """Return the page with the table of today between the marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    PAGE.write_text(written(PAGE.read_text()))


if __name__ == "__main__":
    main()
