"""Whether a captioner's captions may be trained on: what is decided about it, and why."""

from typing import Literal, NamedTuple

import numpy as np

from tasks.dsg.correction import FEWEST_DECOYS, Corrected, Known, correct, is_fit
from tasks.dsg.intervals import Interval, clopper_pearson
from tasks.dsg.scores import Counts, Figures, figures
from tasks.dsg.sequential import Decision
from tasks.dsg.settings import DsgSettings

_LEAST_KNOWN = 0.5
"""Share of the captions of which questions must be made. Rules over words know no objects but theirs, and may know a
word that means something else: in a street that people cross there is no cross. Models may fail."""

Verdict = Literal["passed", "failed", "no verdict"]


class Judged(NamedTuple):
    """What a captioner's captions and their decoys came to."""

    counts: list[Counts]
    decoys: Known
    """Objects that are not there: how many the judge denied, of how many it decided."""
    confirmed: Known
    """Objects that somebody has confirmed: how many it affirmed."""
    decided: Decision | None = None
    """By the sequence of captions, where that was asked for."""
    unquestioned: int = 0
    """Captions beside these of which a model made no questions."""


class Gate(NamedTuple):
    """What is said of a captioner."""

    verdict: Verdict
    why: str
    figures: Figures
    corrected: Corrected | None
    """The share of invented objects without the judge's errors; None where it is not fit, or no object is decided."""


def decide(judged: Judged, settings: DsgSettings) -> Gate:
    """Return what is decided about one captioner.

    Raises:
        ValueError: it has no caption.
    """
    found = figures(judged.counts)
    if trouble := unfit(judged, settings):
        return Gate("no verdict", trouble, found, None)
    corrected = _corrected(found, judged) if found.rate_i.of else None
    if (found.undecided or 0) > settings.max_undecided:
        return Gate("failed", f"{found.undecided:.1%} of the objects are undecided", found, corrected)
    if (found.objects_per_caption or 0) < settings.min_objects:
        return Gate("failed", f"captions name {found.objects_per_caption:.2f} objects in the mean", found, corrected)
    if corrected is None:
        return Gate("no verdict", "no object is decided", found, None)
    if settings.repair != "none":
        return Gate("passed", "what is invented was taken out", found, corrected)
    return Gate(*_of_rate(found, judged, corrected, settings.max_invented), found, corrected)


def unfit(judged: Judged, settings: DsgSettings) -> str | None:
    """Say why there is no figure, if there is none."""
    right, asked = judged.decoys
    if asked < FEWEST_DECOYS:
        return f"the judge answered {asked} decoys, and what it is worth is known from {FEWEST_DECOYS} on"
    if asked - right > settings.max_false_yes * asked or not is_fit(judged.decoys, judged.confirmed):
        seen = judged.confirmed
        denied = f", and denied {seen.asked - seen.right} of {seen.asked} that people saw" if seen.asked else ""
        return f"judge not fit here: it affirmed {asked - right} of {asked} objects that are not there{denied}"
    captions = len(judged.counts) + judged.unquestioned
    known = sum(bool(one.keys) or settings.judge != "shapes" for one in judged.counts)
    if known < _LEAST_KNOWN * captions:
        return f"questions can be made of {known} of {captions} captions only: the others are not of the judge's world"
    return None


def _corrected(found: Figures, judged: Judged) -> Corrected:
    rate = found.rate_i
    observed = Interval(*(np.asarray(end, float) for end in (rate.rate, rate.low, rate.high, found.effective_objects)))
    return correct(observed, judged.decoys, judged.confirmed)


def _of_rate(found: Figures, judged: Judged, corrected: Corrected, limit: float) -> tuple[Verdict, str]:
    said = (
        f"{float(corrected.rate):.1%} of the objects invented [{float(corrected.low):.1%}, {float(corrected.high):.1%}]"
    )
    if judged.decided == "above":
        return "failed", f"{said}, decided after {found.captions} captions"
    if judged.decided == "below" and corrected.rate <= limit:
        return "passed", f"{said}, decided after {found.captions} captions"
    if found.is_trusted:
        return ("passed" if corrected.high <= limit else "failed"), said
    most = most_invented(judged.counts, judged.decoys.share)
    few = f"{found.with_invention} of {found.captions} captions have an invention"
    if most <= limit:
        return "passed", f"{few}: at most {most:.1%} of the objects are invented"
    return "no verdict", f"{few}: {found.captions_needed} captions more until an interval can be trusted"


def most_invented(counts: list[Counts], sensitivity: float) -> float:
    """Return a share that the true share of invented objects is not above, in 97.5 of 100, however few there are.

    The exact upper end of the share of captions with an invention, as if each of these were the one with the most
    objects and all of them invented.
    """
    objects = np.array([one.objects for one in counts if one.objects])
    with_invention = sum(one.invented > 0 for one in counts)
    _, high = clopper_pearson(np.array(with_invention), np.array(len(objects)))
    return min(1.0, float(high) * float(objects.max() / objects.mean()) / sensitivity)
