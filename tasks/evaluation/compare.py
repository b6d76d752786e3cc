"""Two score cards side by side, if they are alike in all that figures depend on but the model."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tasks.evaluation.card import Card, Dimension

_MUST_AGREE = ("suite", "videos")
"""Parts of the card by which two are of the same test."""
_MAY_DIFFER = ("model", "machine")
"""Parts that are what one compares, or what is told beside."""
_BESIDE = ("floor",)
"""Of a protocol: figures of the same reference, whose last bits are a machine's."""
_SEEDS = "suite.seeds"
"""Other seeds are another draw from the same model: told, not refused."""


class Difference(NamedTuple):
    """A field of two cards that is not the same."""

    field: str
    first: Any
    second: Any

    def __str__(self) -> str:
        return f"{self.field}: {_short(self.first)} against {_short(self.second)}"


class Line(NamedTuple):
    """A figure of both cards."""

    first: Dimension
    second: Dimension

    @property
    def is_apart(self) -> bool | None:
        """Whether the two intervals do not meet; None where one of them is not known."""
        a, b = self.first, self.second
        if None in (a.low, a.high, b.low, b.high):
            return None
        assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
        return a.high < b.low or b.high < a.low


class Comparison(NamedTuple):
    """Two cards, compared."""

    unlike: list[Difference]
    """Why their figures cannot be compared; empty where they can."""
    differs_by: list[Difference]
    """What may differ, and does."""
    lines: list[Line]
    alone: list[tuple[str, str]]
    """Figures that one card only has: its place (first or second) and the name."""


def compare(first: Card, second: Card) -> Comparison:
    """Compare two cards."""
    a, b = (card.model_dump(mode="json", by_alias=True) for card in (first, second))
    found = [one for part in _MUST_AGREE for one in _differences(a[part], b[part], part)]
    unlike = [one for one in found if one.field != _SEEDS]
    if first.account.ok != second.account.ok:
        unlike.append(Difference("n", first.account.ok, second.account.ok))
    of_second = {(one.group, one.name): one for one in second.dimensions}
    pairs = [(one, of_second[one.group, one.name]) for one in first.dimensions if (one.group, one.name) in of_second]
    for one, other in pairs:
        unlike += _unlike_figures(one, other)
    differs = [one for one in found if one.field == _SEEDS]
    differs += [one for part in _MAY_DIFFER for one in _differences(a[part], b[part], part)]
    return Comparison(unlike, differs, [Line(*pair) for pair in pairs], [*_alone(first, second)])


def _unlike_figures(first: Dimension, second: Dimension) -> Iterator[Difference]:
    """Give what makes one figure of the two cards another test."""
    if first.status != "ok" or second.status != "ok":
        return
    name = _name(first)
    if first.n != second.n:
        yield Difference(f"{name} n", first.n, second.n)
    ours, theirs = (
        {key: value for key, value in one.protocol.items() if key not in _BESIDE} for one in (first, second)
    )
    yield from _differences(ours, theirs, f"{name} protocol")


def _alone(first: Card, second: Card) -> Iterator[tuple[str, str]]:
    names = [{_name(one) for one in card.dimensions} for card in (first, second)]
    for place, own, others in (("first", names[0], names[1]), ("second", names[1], names[0])):
        yield from ((place, name) for name in sorted(own - others))


def _differences(first: Any, second: Any, place: str) -> Iterator[Difference]:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in sorted(first.keys() | second.keys()):
            yield from _differences(first.get(key), second.get(key), f"{place}.{key}")
    elif first != second:
        yield Difference(place, first, second)


def _name(one: Dimension) -> str:
    return f"{one.group} {one.name}".strip()


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}..." if len(text) == 64 and " " not in text else text


# ----------------------------------------------------------------------------------------------------------- shown


def table(found: Comparison, names: tuple[str, str]) -> str:
    """Return a comparison for people: a table in text, what differs, and the warning where the two are unlike."""
    rows = [("", *names, "difference", "intervals")]
    rows += [
        (_name(line.first), figure(line.first), figure(line.second), _change(line), _APART[line.is_apart])
        for line in found.lines
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [f"NOT COMPARABLE: {one}" for one in found.unlike]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"only {names[place == 'second']} has {name}" for place, name in found.alone]
    lines.append("differs by:" if found.differs_by else "differs by: nothing")
    return "\n".join([*lines, *(f"  {one}" for one in found.differs_by)])


_APART = {True: "apart", False: "overlap", None: ""}


def figure(one: Dimension) -> str:
    """Return a figure with its unit, interval and n in words."""
    if one.value is None:
        return one.status.replace("_", " ")
    interval = (
        "" if one.low is None or one.high is None else f" [{number(one.low, one.unit)}, {number(one.high, one.unit)}]"
    )
    unit = "" if one.unit in (None, "share") else f" {one.unit}"
    return f"{number(one.value, one.unit)}{unit}{interval} n={one.n}"


def number(value: float, unit: str | None) -> str:
    """Return a number as figures of its unit are written."""
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.4g}"


def _change(line: Line) -> str:
    if line.first.value is None or line.second.value is None:
        return ""
    change = line.second.value - line.first.value
    return f"{100 * change:+.1f} points" if line.first.unit == "share" else f"{change:+.4g}"


def as_json(found: Comparison, names: tuple[str, str]) -> str:
    """Return a comparison for programs."""
    told = {
        "cards": names,
        "is_comparable": not found.unlike,
        "unlike": [one._asdict() for one in found.unlike],
        "differs_by": [one._asdict() for one in found.differs_by],
        "figures": [
            {"first": line.first.model_dump(mode="json"), "second": line.second.model_dump(mode="json"),
             "is_apart": line.is_apart}
            for line in found.lines
        ],
        "alone": [{"card": place, "figure": name} for place, name in found.alone],
    }  # fmt: skip
    return json.dumps(told, indent=2)
