"""Write the tables of the reasons into docs/troubleshooting.md.

    python docs/generate/reason_tables.py

The lines between the two marks come from tasks/pages/reasons.py; the rest of the page is written by hand.
"""

from pathlib import Path

from tasks.pages.reasons import REASONS, REPAIRS, Reason

PAGE = Path(__file__).parents[1] / "troubleshooting.md"
BEGIN, END = "<!-- reasons: begin -->", "<!-- reasons: end -->"


def tables(level: str) -> list[str]:
    """Return a table for each kind of reason, and one of what is repaired.

    Args:
        level: of their headings, such as `##`.
    """
    lines: list[str] = []
    for group, codes in REASONS.items():
        lines += [f"{level} {group}", "", *_table("reason", codes), ""]
    lines += [f"{level} What is repaired", "", "A video that is used has these in its column `repairs`.", ""]
    return lines + _table("repair", REPAIRS)


def _table(head: str, codes: dict[str, Reason]) -> list[str]:
    rows = [f"| `{code}` | {_cell(one.meaning)} | {_cell(one.remedy)} |" for code, one in codes.items()]
    return [f"| {head} | what it means | what to do |", "|---|---|---|", *rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def written(page: str) -> str:
    """Return the page with the tables of today between the marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([f"{before}{BEGIN}", "", *tables("###"), "", f"{END}{after}"])


def main() -> None:
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
