"""95 % intervals of rates whose units come in clusters: objects in captions.

A captioner that invents one object of a video tends to invent another: the objects of one caption are no independent
draws, and an interval that takes them for such is too narrow (docs/dsg.md has how often). Arrays have the clusters on
their last axis, and results are of the axes before it.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

Z_95 = float(special.ndtri(0.975))
POWER_80 = float(special.ndtri(0.8))
_TAIL = 0.025


class Interval(NamedTuple):
    """A rate and its two-sided 95 % interval; NaN where nothing was counted."""

    rate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    effective: np.ndarray
    """How many independent units would tell as much."""


def korn_graubard(hits: np.ndarray, units: np.ndarray) -> Interval:
    """Return sum(hits) / sum(units) with the interval of Korn and Graubard (1998, Survey Methodology 24, 193).

    Clopper-Pearson on the effective number of units, which Kish's design effect gives, corrected for the degrees of
    freedom that the number of clusters leaves.

    Args:
        hits: counts, (..., clusters).
        units: counts, (..., clusters), of which the hits are some. Clusters without a unit tell nothing.

    Raises:
        ValueError: there are more hits than units, or fewer than none.
    """
    x, m = np.asarray(hits, float), np.asarray(units, float)
    if (x < 0).any() or (x > m).any():
        raise ValueError("korn_graubard: a cluster has more hits than units, or fewer than none")
    total, clusters = m.sum(-1), (m > 0).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = x.sum(-1) / total
        residuals = x - rate[..., None] * m
        variance = clusters / (clusters - 1) * (residuals**2).sum(-1) / total**2
        effective = np.minimum(total, np.where(variance > 0, rate * (1 - rate) / variance, total))
        t = special.stdtrit(np.maximum(clusters - 1, 1), 1 - _TAIL)
        effective = np.minimum(total, effective * (Z_95 / t) ** 2)
    effective = np.where((rate == 0) | (rate == 1), total, effective)
    low, high = clopper_pearson(rate * effective, effective)
    alone = clusters == 1  # one cluster says nothing of others
    return Interval(rate, np.where(alone, 0.0, low), np.where(alone, 1.0, high), effective)


def clopper_pearson(hits: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact interval of hits / units, whole numbers or not; NaN without a unit."""
    x, n = np.asarray(hits, float), np.asarray(units, float)
    with np.errstate(invalid="ignore"):
        low = special.betaincinv(np.maximum(x, np.finfo(float).tiny), np.maximum(n - x + 1, 1), _TAIL)
        high = special.betaincinv(x + 1, np.maximum(n - x, np.finfo(float).tiny), 1 - _TAIL)
    low, high = np.where(x <= 0, 0.0, low), np.where(x >= n, 1.0, high)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def wilson(hits: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the score interval of hits / units (Wilson 1927), which takes units for independent; NaN without one."""
    x, n = np.asarray(hits, float), np.asarray(units, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        share, spread = x / n, Z_95**2 / n
        centre = (share + spread / 2) / (1 + spread)
        half = Z_95 / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    return np.where(x > 0, centre - half, 0.0 * n), np.where(x < n, centre + half, 0.0 * n + 1)


FEWEST_HIT = 10
"""Captions with an invention below which the interval may be too narrow, and there is no verdict (docs/dsg.md)."""


def captions_needed(captions: int, with_invention: int) -> int:
    """Return how many more captions it takes until `FEWEST_HIT` have an invention, at the rate so far.

    Where none has one it is more than what is returned, which is for one.
    """
    if with_invention >= FEWEST_HIT:
        return 0
    return math.ceil(captions * FEWEST_HIT / max(with_invention, 1)) - captions
