"""The condition matrix: what one model does over kinds of given frames, text, guidance and scales.

A model that works under the one condition that its card is of may stand still, ignore text or lose its given frames
under others. Cells that mean nothing are listed as such, not dropped, and cells that cannot differ are made once.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from stiv_model.settings import Pattern
from tasks.demo.shapes import judge
from tasks.evaluation import alarms, moving, text_agreement
from tasks.evaluation.card import Alarm, Dimension
from tasks.evaluation.judge import ATTRIBUTES, psnr
from tasks.evaluation.metrics import Evaluated, Features, NotApplicable, Rows, SetMetric
from tasks.evaluation.settings import EvaluationSettings

Text = Literal["text", "empty"]
Guidance = Literal["text", "joint", "separate"]

MODES: dict[str, Pattern] = {
    "T2V": "none",
    "TI2V": "first",
    "prediction": "first_four",
    "interpolation": "first_and_last",
    "upsampling": "every_second",
}
"""Which frames each kind is given."""
TEXTS: tuple[Text, ...] = ("text", "empty")
GUIDANCES: tuple[Guidance, ...] = ("text", "joint", "separate")
UNGUIDED = 1.0
"""The scale of no guidance."""


class Cell(NamedTuple):
    """One condition."""

    mode: str
    """A key of `MODES`."""
    text: Text
    """The prompt, or the empty one."""
    guidance: Guidance
    scale: float
    """Of the guidance; with `separate` of its text, the image's being the model's own."""

    @property
    def name(self) -> str:
        """As files are called."""
        return f"{self.mode}-{self.text}-{self.guidance}-{self.scale:g}"


def cells(scales: Sequence[float]) -> list[Cell]:
    """Return every condition, row by row."""
    return [Cell(*one, scale) for mode in MODES for text in TEXTS for one in _guided(mode, text) for scale in scales]


def _guided(mode: str, text: Text) -> list[tuple[str, Text, Guidance]]:
    return [(mode, text, guidance) for guidance in GUIDANCES]


def meaningless(cell: Cell, given: int, frames: int) -> str | None:
    """Return why a condition says nothing of videos of so many frames, some of them given; None of one that does."""
    if given >= frames:
        return f"all {frames} frames are given: none is left to make"
    if cell.guidance == "separate" and cell.mode == "T2V":
        return "separate guidance weighs text against given frames, and there are none"
    if cell.text == "text" or cell.scale == UNGUIDED:
        return None
    if cell.guidance == "text":
        return "text guidance of the empty text: its two passes are the same"
    if cell.mode == "T2V":
        return "nothing is given to guide by: no text and no frame"
    return None


def same_as(cell: Cell, scales: Sequence[float]) -> Cell:
    """Return the cell whose videos are the same by the formulas of guidance: the first such; else the cell itself."""
    if cell.guidance == "joint" and (cell.mode == "T2V" or cell.scale == UNGUIDED):
        return cell._replace(guidance="text")  # without given frames, or without guidance, they are one
    if cell.guidance == "separate" and cell.text == "empty":
        return cell._replace(scale=scales[0])  # the scale of the text weighs a difference that is 0
    return cell


def measure(entries: Sequence[Evaluated], has_text: bool, settings: EvaluationSettings) -> dict[str, Any]:
    """Return the figures of one cell, as JSON has them.

    `match` is the share of words that the judge of shapes finds right, None where no prompt is of shapes; `psnr` of the
    given frames, dB, the mean; `motion` as a multiple of the real clips', medians; and the alarms.

    Args:
        entries: its videos, each with its real one and the prompt of its scene.
        has_text: the model was given that prompt; if not, nobody asks whether it ignores it.
    """
    real = np.median([_moved(entry.truth) for entry in entries if entry.truth is not None])
    moved = np.median([moving.FEATURES[0].measure(entry)[0] for entry in entries])
    figures: dict[str, Any] = {"n": len(entries), "match": _match(entries), "psnr": _fidelity(entries)}
    figures["motion"] = round(float(moved / real), 4) if real > 0 else None
    found = _alarms(entries, has_text, settings)
    return figures | {"alarms": [alarm.model_dump(mode="json") for alarm in found]}


def _moved(video: np.ndarray) -> float:
    return float(moving.FEATURES[0].measure(Evaluated("", video))[0])


def _match(entries: Sequence[Evaluated]) -> float | None:
    asked = [entry for entry in entries if entry.colour is not None]
    if not asked:
        return None
    verdicts = [entry.seen_by(judge) for entry in asked]
    right = [
        getattr(verdict, name) == getattr(entry, name)
        for entry, verdict in zip(asked, verdicts, strict=True)
        for name in ATTRIBUTES
    ]
    return round(float(np.mean(right)), 4)


def _fidelity(entries: Sequence[Evaluated]) -> float | None:
    found = [
        psnr(entry.truth[place], entry.video[place])
        for entry in entries
        if entry.truth is not None
        for place in entry.given_frames
    ]
    return round(float(np.mean(found)), 2) if found else None


def _alarms(entries: Sequence[Evaluated], has_text: bool, settings: EvaluationSettings) -> list[Alarm]:
    found = [dimension(moving.FEATURES[0], moving.SET_METRICS[0], entries, settings)]
    if has_text:
        found.append(dimension(text_agreement.FEATURES[0], text_agreement.SET_METRICS[0], entries, settings))
    dimensions = [one for one in found if one is not None]
    rules = alarms.ALARMS if has_text else (alarms.still_video,)
    return [alarm for rule in rules for alarm in rule(dimensions, settings)]


def dimension(
    features: Features, metric: SetMetric, entries: Sequence[Evaluated], settings: EvaluationSettings
) -> Dimension | None:
    """Return the figure of these videos as one group; None where the features apply to none of them."""
    rows = np.array([features.measure(entry) for entry in entries if features.applies(entry)])
    if not len(rows):
        return None
    about: dict[str, Any] = {"name": metric.name, "unit": metric.unit, "better": metric.better, "n": len(rows)}
    try:
        figure = metric.compute(Rows(rows, "", {}, settings, rows))
    except NotApplicable as why:
        return Dimension(value=None, status="not_applicable", reason=str(why), **about)
    protocol = dict(metric.protocol) | dict(figure.protocol)
    return Dimension(value=figure.value, low=figure.low, high=figure.high, protocol=protocol, **about)
