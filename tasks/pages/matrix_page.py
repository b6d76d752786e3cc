"""The page of a condition matrix: a heat map of each figure, the alarms, and a picture of every cell."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.pages.data_uris import data_uri
from tasks.pages.templates import template


class _Figure(NamedTuple):
    """A heat map."""

    key: str
    title: str
    meaning: str
    unit: str
    low: float
    """Value of the palest cell ..."""
    high: float
    """... and of the most colourful."""
    digits: int


_FIGURES = (
    _Figure(
        "match",
        "Follows the prompt",
        "Words of the prompt that the judge finds right: colour, shape, direction.",
        "%",
        0,
        1,
        0,
    ),
    _Figure("psnr", "Keeps the given frames", "PSNR of the frames that were given; higher is nearer.", "dB", 15, 35, 1),
    _Figure(
        "motion", "Moves", "Median motion as a multiple of the real clips': 1 is as much, 0 stands still.", "×", 0, 2, 2
    ),
)


def build(content: Mapping[str, Any], pictures: Path) -> str:
    """Return the page (HTML, self-contained, no script).

    Args:
        content: of `matrix.json`.
        pictures: folder with NAME.png of each cell that was made.
    """
    cells: Sequence[Mapping[str, Any]] = content["cells"]
    columns = list(dict.fromkeys((one["guidance"], one["scale"]) for one in cells))
    rows = list(dict.fromkeys((one["mode"], one["text"]) for one in cells))
    of = {(one["mode"], one["text"], one["guidance"], one["scale"]): one for one in cells}
    shown = [
        (one, data_uri("image/png", (pictures / f"{one['name']}.png").read_bytes())) for one in cells if _is_made(one)
    ]
    return template("matrix.html.jinja", {"figure": _figure, "shade": _shade, "firing": _firing}).render(
        content=content, figures=_FIGURES, columns=columns, rows=rows, of=of, shown=shown,
        scales=list(dict.fromkeys(scale for _, scale in columns)),
        guidances=list(dict.fromkeys(guidance for guidance, _ in columns)),
        untrained={one["mode"] for one in cells if one["untrained"]},
        alarms=[(one, alarm) for one in cells if _is_made(one) for alarm in _firing(one)],
        counts=_counts(cells),
        reasons=_reasons(cells),
    )  # fmt: skip


def _is_made(cell: Mapping[str, Any]) -> bool:
    return cell["status"] == "ok" and "same_as" not in cell


def _firing(cell: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [alarm for alarm in cell.get("alarms", ()) if alarm["state"] == "fires"]


def _figure(cell: Mapping[str, Any], figure: _Figure) -> str:
    value = cell.get(figure.key)
    if value is None:
        return "–"
    return f"{value * (100 if figure.unit == '%' else 1):.{figure.digits}f}"


def _shade(cell: Mapping[str, Any], figure: _Figure) -> float:
    """Return how colourful a cell is, 0 to 1."""
    value = cell.get(figure.key)
    return 0.0 if value is None else round(min(1.0, max(0.0, (value - figure.low) / (figure.high - figure.low))), 3)


def _reasons(cells: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return why conditions were not made, each reason with the names of those."""
    found: dict[str, list[str]] = {}
    for one in cells:
        if one["status"] != "ok":
            found.setdefault(one["reason"], []).append(
                f"{one['mode']} {one['text']} {one['guidance']} {one['scale']:g}"
            )
    return found


def _counts(cells: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    of = {"made": sum(map(_is_made, cells)), "the same as another": sum("same_as" in one for one in cells)}
    for status, words in (("means_nothing", "without a meaning"), ("refused", "refused by the model")):
        of[words] = sum(one["status"] == status and "same_as" not in one for one in cells)
    return of
