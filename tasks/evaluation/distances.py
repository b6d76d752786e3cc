"""Two sets of clips compared: the distance, its interval, and its floor: that of real clips from real ones."""

from typing import Any, NamedTuple

import numpy as np

from stiv_model.metrics import frechet
from stiv_model.metrics.frechet import Curve, Interval


class Measured(NamedTuple):
    """A Fréchet distance of some number of clips of either side."""

    distance: float
    interval: Interval
    n_real: int
    n_made: int


class Distances(NamedTuple):
    """What made clips are from real ones, beside what other real clips are from the same ones.

    Where there are twice as many real clips as made ones, the last real ones stand in for the made ones in `floor`, and
    are left out of `made`: both are of the same numbers of clips. Where there are fewer, the floor is of the halves of
    the real clips, and `made_at_floor` of as many made ones.
    """

    made: Measured
    floor: Measured | None
    """None where there are fewer than four real clips."""
    made_at_floor: Measured | None
    """None where `made` is of as many clips as the floor."""


def compare(real: np.ndarray, made: np.ndarray) -> Distances:
    """Return how far made clips are from real ones.

    Args:
        real, made: features, float64 (n, K), in an order that says nothing.

    Raises:
        ValueError: a side has fewer than two clips, constant features, or what is no finite number.
    """
    check(real, made)
    compared, other = _apart(real, len(made))
    half = len(real) // 2
    floor: Measured | None = None
    at_floor: Measured | None = None
    if other is not None:
        floor = _measured(compared, other)
    elif half >= 2:  # and no more than there are made ones
        floor = _measured(real[:half], real[half : 2 * half])
        at_floor = _measured(real[:half], made[:half])
    return Distances(_measured(compared, made), floor, at_floor)


def kernel(real: np.ndarray, made: np.ndarray) -> float:
    """Return the kernel distance of made clips from the same real ones as `compare`.

    Args:
        real, made: features, float64 (n, K).

    Raises:
        ValueError: as `compare`.
    """
    check(real, made)
    return frechet.kernel_distance(_apart(real, len(made))[0], made)


def n_compared(n_real: int, n_made: int) -> int:
    """Return how many of the real clips `compare` and `kernel` hold against so many made ones."""
    return len(_apart(np.empty((n_real, 0)), n_made)[0])


def floor_of(real: np.ndarray) -> Measured:
    """Return how far one half of real clips is from the other.

    Args:
        real: features, float64 (n, K).

    Raises:
        ValueError: there are fewer than four clips, constant features, or what is no finite number.
    """
    half = len(real) // 2
    if half < 2:
        raise ValueError(f"{len(real)} real clips: two halves of two take 4 at least, and a figure many more")
    check(real[:half], real[half : 2 * half])
    return _measured(real[:half], real[half : 2 * half])


def curves(real: np.ndarray, made: np.ndarray) -> dict[str, Curve]:
    """Return the distance over n of made from real clips, and of real clips from others of them.

    Args:
        real, made: features, float64 (n, K).

    Raises:
        ValueError: there are too few clips of a side, or their features are constant.
    """
    check(real, made)
    compared, other = _apart(real, len(made))
    found = {"made": frechet.curve_over_n(compared, made)}
    half = len(real) // 2
    one, another = (compared, other) if other is not None else (real[:half], real[half:])
    return found | ({"real": frechet.curve_over_n(one, another)} if min(len(one), len(another)) >= 12 else {})


def check(real: np.ndarray, made: np.ndarray) -> None:
    """Refuse features of which a figure would mean nothing.

    Raises:
        ValueError: a side has fewer than two clips, the same features for all, or what is no finite number.
    """
    frechet.check_rows(real, made)
    for side, rows in (("real", real), ("made", made)):
        if not np.ptp(rows, axis=0).any():
            raise ValueError(f"all {len(rows)} {side} clips have the same features: they are the same clip")


def as_json(measured: Measured) -> dict[str, Any]:
    """Return a distance as JSON has it."""
    return measured._asdict() | {"interval": list(measured.interval)}


def _apart(real: np.ndarray, n_made: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the real clips that are compared, and as many others as there are made ones, where that leaves as many."""
    if len(real) < 2 * n_made:
        return real, None
    return real[:-n_made], real[-n_made:]


def _measured(real: np.ndarray, made: np.ndarray) -> Measured:
    distance = frechet.frechet_distance(real, made)
    return Measured(distance, frechet.bootstrap_interval(real, made), len(real), len(made))
