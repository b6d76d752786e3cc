"""The rate that a judge without errors would have found, from what the judge says of objects whose truth is known.

Decoys are objects that are not there: the share that the judge denies is its sensitivity to inventions. Confirmed
objects are there: the share that it affirms is its specificity. Rogan and Gladen 1978, Am. J. Epidemiology 107, 71:
rate = (observed + specificity - 1) / (sensitivity + specificity - 1).
"""

from typing import NamedTuple

import numpy as np

from tasks.dsg.intervals import Z_95, Interval

LEAST_YOUDEN = 0.5
"""sensitivity + specificity - 1 below which a judge says too little, and there is no figure."""
FEWEST_DECOYS = 20
"""Decoys below which nothing is known of a judge."""


class Known(NamedTuple):
    """How often a judge was right about objects whose truth is known."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        """NaN where nothing was asked."""
        return self.right / self.asked if self.asked else float("nan")


def add(one: Known, other: Known) -> Known:
    """Return what is known by both together, of different objects."""
    return Known(one.right + other.right, one.asked + other.asked)


class Corrected(NamedTuple):
    """A corrected rate with its 95 % interval."""

    rate: np.ndarray
    low: np.ndarray
    high: np.ndarray


def youden(decoys: Known, confirmed: Known) -> float:
    """Return sensitivity + specificity - 1; specificity is taken as 1 where nothing is confirmed."""
    return decoys.share + (confirmed.share if confirmed.asked else 1.0) - 1


def is_fit(decoys: Known, confirmed: Known) -> bool:
    """Say whether enough is known of a judge, and it is right often enough, to say a rate by it."""
    return decoys.asked >= FEWEST_DECOYS and youden(decoys, confirmed) >= LEAST_YOUDEN


def correct(observed: Interval, decoys: Known, confirmed: Known) -> Corrected:
    """Return the rate without the judge's errors; its interval has the uncertainty of all three shares.

    The interval of Lang and Reiczigel (2014, Prev. Vet. Med. 113, 13), on the effective number of objects: measured
    coverage in docs/dsg.md. Without confirmed objects specificity is taken as 1, which leaves the rate too high, never
    too low.

    Args:
        observed: rates with their effective numbers of objects, of any shape.

    Raises:
        ValueError: the judge knows too little (`LEAST_YOUDEN`, `FEWEST_DECOYS`).
    """
    if not is_fit(decoys, confirmed):
        raise ValueError(
            f"the judge denied {decoys.right} of {decoys.asked} decoys and affirmed {confirmed.right} of "
            f"{confirmed.asked} confirmed objects: it is not fit to correct a rate by"
        )
    share = confirmed.share if confirmed.asked else 1.0
    rate = _rogan_gladen(observed.rate, decoys.share, share)
    # each share is pulled towards the middle by as much as its interval is wide, as Agresti and Coull do
    objects = observed.effective + Z_95**2
    seen = (observed.effective * observed.rate + Z_95**2 / 2) / objects
    sensitivity, of_sensitivity = _pulled(decoys)
    specificity, of_specificity = _pulled(confirmed) if confirmed.asked else (1.0, 0.0)
    pulled = _rogan_gladen(seen, sensitivity, specificity)
    shift = 2 * Z_95**2 * (pulled * of_sensitivity - (1 - pulled) * of_specificity)
    variance = seen * (1 - seen) / objects + pulled**2 * of_sensitivity + (1 - pulled) ** 2 * of_specificity
    half = Z_95 * np.sqrt(variance) / (sensitivity + specificity - 1)
    middle = pulled + shift
    return Corrected(
        rate, np.clip(np.minimum(middle - half, rate), 0, 1), np.clip(np.maximum(middle + half, rate), 0, 1)
    )


def observed_threshold(rate: float, decoys: Known, confirmed: Known) -> float:
    """Return what a judge with these errors observes where the true rate is `rate`."""
    specificity = confirmed.share if confirmed.asked else 1.0
    return rate * decoys.share + (1 - rate) * (1 - specificity)


def _pulled(known: Known) -> tuple[float, float]:
    """Return a share, with a right and a wrong answer added, and its variance."""
    share = (known.right + 1) / (known.asked + 2)
    return share, share * (1 - share) / (known.asked + 2)


def _rogan_gladen(observed: np.ndarray, sensitivity: float, specificity: float) -> np.ndarray:
    return np.clip((observed + specificity - 1) / (sensitivity + specificity - 1), 0, 1)
