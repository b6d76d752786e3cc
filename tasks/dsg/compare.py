"""Two captioners on the same clips: which invents less, or that it cannot be told and what would tell."""

import math
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from tasks.dsg.intervals import FEWEST_HIT, POWER_80, Z_95, captions_needed

Comparison = Literal["better", "worse", "cannot tell"]


class Compared(NamedTuple):
    """The rate of the first less that of the second."""

    difference: float
    low: float
    high: float
    z: float
    """The difference in standard errors."""
    verdict: Comparison
    """Of the first: better, for it invents less."""
    more: int | None
    """Clips more, each captioned by both, that would tell a difference of this size in 8 of 10 cases; 0 where it is
    told; None where there is no difference."""

    def __str__(self) -> str:
        if self.verdict != "cannot tell":
            return self.verdict
        return "cannot tell" + (f", {self.more} clips more would tell" if self.more is not None else "")


def compare(invented_a: np.ndarray, objects_a: np.ndarray, invented_b: np.ndarray, objects_b: np.ndarray) -> Compared:
    """Compare two captioners by what each invents of the same clips.

    The difference of two ratios, with a variance of the pairs (linearised, Cochran 1977, section 6.12) and Student's t:
    what makes a clip hard for both is in neither.

    Args:
        invented_a, objects_a: counts of the first captioner, (clips,).
        invented_b, objects_b: of the second, of the same clips in the same order.

    Raises:
        ValueError: fewer than two clips, or a captioner names no object at all.
    """
    (h_a, m_a), (h_b, m_b) = (
        (np.asarray(hits, float), np.asarray(units, float))
        for hits, units in ((invented_a, objects_a), (invented_b, objects_b))
    )
    clips = len(m_a)
    if clips < 2 or not m_a.sum() or not m_b.sum():
        raise ValueError(f"compare: {clips} clips, {m_a.sum():.0f} and {m_b.sum():.0f} objects: too few to compare")
    rate_a, rate_b = h_a.sum() / m_a.sum(), h_b.sum() / m_b.sum()
    share = (h_a - rate_a * m_a) / m_a.sum() - (h_b - rate_b * m_b) / m_b.sum()
    error = math.sqrt(clips / (clips - 1) * float((share**2).sum()))
    width = float(special.stdtrit(clips - 1, 0.975))
    compared = _compared(float(rate_a - rate_b), error, width, clips)
    with_invention = int(((h_a > 0) | (h_b > 0)).sum())
    if with_invention >= FEWEST_HIT:
        return compared
    return compared._replace(
        verdict="cannot tell", more=max(compared.more or 0, captions_needed(clips, with_invention))
    )


def compare_totals(
    invented_a: int, objects_a: int, invented_b: int, objects_b: int, captions: int, design_effect: float = 1.0
) -> Compared:
    """Compare two captioners of whom only totals are known, as those of a paper, on different clips.

    Args:
        captions: of each.
        design_effect: how many times as large the variance is as that of independent objects; 1 says that they are.

    Raises:
        ValueError: there is nothing to compare.
    """
    if not objects_a or not objects_b or captions < 1:
        raise ValueError(f"compare_totals: {objects_a} and {objects_b} objects in {captions} captions")
    rate_a, rate_b = invented_a / objects_a, invented_b / objects_b
    variance = rate_a * (1 - rate_a) / objects_a + rate_b * (1 - rate_b) / objects_b
    return _compared(rate_a - rate_b, math.sqrt(variance * design_effect), Z_95, captions)


def _compared(difference: float, error: float, width: float, clips: int) -> Compared:
    z = difference / error if error else math.copysign(math.inf, difference) if difference else 0.0
    low, high = difference - width * error, difference + width * error
    if high < 0 or low > 0:
        return Compared(difference, low, high, z, "better" if high < 0 else "worse", 0)
    more = max(1, math.ceil(clips * ((Z_95 + POWER_80) / z) ** 2) - clips) if z else None
    return Compared(difference, low, high, z, "cannot tell", more)
