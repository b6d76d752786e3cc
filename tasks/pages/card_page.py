"""The page of a score card: figures with intervals, alarms, the worst videos, what was not measured, all facts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from tasks.evaluation import registry
from tasks.evaluation.card import Card, Dimension
from tasks.evaluation.compare import number
from tasks.pages.data_uris import data_uri
from tasks.pages.reasons import meaning_of
from tasks.pages.templates import template

_FRAMES = 6  # of a video on the sheet, evenly spread
_HEIGHT = 96  # of each, pixels, at most


class _Shown(NamedTuple):
    """A video of the sheet."""

    id: str
    group: str
    prompt: str | None
    strip: str | None
    """Its frames side by side, as a data URI."""
    wrong: list[str]
    """Names of what it has wrong."""
    values: list[tuple[str, str]]


def build(card: Card, rows: Sequence[Mapping[str, Any]], worst: Sequence[str], frames: Mapping[str, np.ndarray]) -> str:
    """Return the page (HTML, self-contained, no script).

    Args:
        rows: of the table of values per video.
        worst: ids of the videos of the sheet, the worst first.
        frames: of these, uint8 RGB (T, H, W, 3).
    """
    of = {row["id"]: row for row in rows}
    groups = list(dict.fromkeys(one.group for one in card.dimensions))
    names = list(dict.fromkeys(one.name for one in card.dimensions))
    return template("card.html.jinja", {"figure": _number, "interval": _interval}).render(
        card=card,
        groups=groups,
        names=names,
        meanings={one.name: one.meaning for one in registry.figures()},
        firing=[alarm for alarm in card.alarms if alarm.state == "fires"],
        shown=[_shown(of[name], frames.get(name)) for name in worst],
        lost=[(one, meaning_of(one.reason).meaning) for one in card.not_measured],
        facts={part: list(_flat(getattr(card, part).model_dump(mode="json"))) for part in _PARTS},
        protocols=[(one, list(_flat(dict(one.protocol)))) for one in _protocols(card.dimensions)],
    )


_PARTS = ("suite", "model", "videos", "machine", "seal")


def _protocols(dimensions: Sequence[Dimension]) -> Iterator[Dimension]:
    """Give one dimension of each name and protocol."""
    seen = set()
    for one in dimensions:
        key = (one.name, json.dumps(one.protocol, sort_keys=True))
        if one.protocol and key not in seen:
            seen.add(key)
            yield one


def _shown(row: Mapping[str, Any], video: np.ndarray | None) -> _Shown:
    measured = [one for one in registry.METRICS if one.better and row.get(one.name) is not None]
    wrong = [one.name for one in measured if one.unit == "share" and row[one.name] != (one.better == "higher")]
    values = [(one.name, f"{row[one.name]:.4g} {one.unit}") for one in measured if one.unit != "share"]
    return _Shown(row["id"], row["group"], row["prompt"], None if video is None else _strip(video), wrong, values)


def _strip(video: np.ndarray) -> str:
    """Return frames of a video side by side, from its first to its last."""
    chosen = video[np.linspace(0, len(video) - 1, min(_FRAMES, len(video))).round().astype(int)]
    height, width = chosen.shape[1:3]
    scale = min(1.0, _HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.hstack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in chosen])
    encoded, content = cv2.imencode(".png", small[..., ::-1])
    assert encoded, "a picture of positive size"
    return data_uri("image/png", content.tobytes())


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Give every fact of a part of the card by its dotted name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{place}.{key}" if place else key)
    else:
        yield place, "none, or not known" if value is None else value if isinstance(value, str) else json.dumps(value)


def _number(one: Dimension) -> str:
    assert one.value is not None, "of figures that are there"
    return number(one.value, one.unit)


def _interval(one: Dimension) -> str:
    if one.low is None or one.high is None:
        return ""
    return f"{number(one.low, one.unit)} to {number(one.high, one.unit)}"


def markdown(card: Card) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| videos | figure | value | 95 % interval | n |", "|---|---|---:|---:|---:|"]
    for one in card.dimensions:
        value = one.status.replace("_", " ") if one.value is None else f"{_number(one)} {_unit(one)}".strip()
        lines.append(f"| {one.group or 'all'} | {one.name} | {value} | {_interval(one)} | {one.n} |")
    return "\n".join(lines) + "\n"


def headlines(card: Card) -> list[str]:
    """Return on lines what one waits for: figures of whole sets that were asked for, such as FVD, and the alarms."""
    asked = {one.name for one in registry.SET_METRICS if not one.is_default}
    told = [_headline(one) for one in card.dimensions if one.name in asked]
    firing = [alarm for alarm in card.alarms if alarm.state == "fires"]
    told += [f"alarm, {_words(alarm.group)}: {_words(alarm.name)}: {alarm.found}" for alarm in firing]
    return told if firing else [*told, f"no alarm fires, of {len(card.alarms)}"]


def _headline(one: Dimension) -> str:
    said = f"{one.name}, {_words(one.group)}: "
    if one.value is None:
        return f"{said}{_words(one.status)} ({one.reason})"
    interval, floor = _interval(one), one.protocol.get("floor")
    said += f"{_number(one)} {_unit(one)}".strip() + (f" [{interval}]" if interval else "") + f", n = {one.n}"
    if isinstance(floor, Mapping):
        said += f"; real clips against real ones {number(float(str(floor['distance'])), one.unit)}"
        if isinstance(same := one.protocol.get("made_at_floor"), Mapping):
            said += f", and as many made ones {number(float(str(same['distance'])), one.unit)}, n = {same['n_made']}"
    return said


def _words(name: str) -> str:
    return name.replace("_", " ") or "all videos"


def _unit(one: Dimension) -> str:
    return "" if one.unit in (None, "share") else str(one.unit)
