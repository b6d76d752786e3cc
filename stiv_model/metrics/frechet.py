"""How far apart two sets of clips are, from a row of features of each: Fréchet and kernel distance.

The distances are torchmetrics'. Of clips' features they are called FVD (Unterthiner et al. 2018) and KVD where the
features are I3D's logits, and by the name of their extractor where they are others.

Shapes: n rows, K features. torchmetrics takes 3 s to import: only here, and only when it is asked.
"""

import math
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance

SUBSETS = 100
"""Drawn by the kernel distance of sets that are not of one size."""
RESAMPLES = 200
"""Of the bootstrap."""
_CURVE_POINTS, _CURVE_DRAWS, _LEAST = 8, 10, 6
_SEED = 0


class Interval(NamedTuple):
    """95 % of a bootstrap."""

    low: float
    high: float


class CurvePoint(NamedTuple):
    """The distance at some n, mean of several draws of n rows of either side."""

    n: int
    distance: float


class Curve(NamedTuple):
    """The distance over n, and the line through it over 1/n."""

    points: list[CurvePoint]
    at_infinity: float
    """Where the line is at 1/n = 0 (Chong & Forsyth 2020, who do so for FID)."""
    r_squared: float
    """Share of the variance over n that the line explains."""


class _Rows(nn.Module):
    """The extractor of what are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, rows_nK: Tensor) -> Tensor:
        return rows_nK


def frechet_stream(num_features: int) -> "FrechetInceptionDistance":
    """Return torchmetrics' distance of rows of features, which sums up what `update(rows, real=...)` gives it.

    Rows are float64 (n, K): it computes in their dtype.
    """
    # its package's own door, torchmetrics.image, asks for torch-fidelity
    from torchmetrics.image.fid import FrechetInceptionDistance

    stream = FrechetInceptionDistance(feature=_Rows(num_features))
    stream.set_dtype(torch.float64)
    return stream


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Return the squared Fréchet distance of the Gaussians with the rows' means and covariances (of n - 1).

    Args:
        real: (n, K).
        fake: (m, K).

    Raises:
        ValueError: a side has fewer than two rows, not K features, or what is no finite number.
    """
    check_rows(real, fake)
    stream = frechet_stream(real.shape[1])
    stream.update(_as_rows(real), real=True)
    stream.update(_as_rows(fake), real=False)
    return float(stream.compute())


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Return the unbiased squared maximum mean discrepancy by the cubic kernel (x y / K + 1)^3 (Binkowski et al. 2018).

    Of all rows where both sides have as many; otherwise the mean of 100 draws of as many as the smaller side has.

    Args:
        real: (n, K).
        fake: (m, K).

    Raises:
        ValueError: as `frechet_distance`.
    """
    check_rows(real, fake)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all rows, which are in memory already
        from torchmetrics.image.kid import KernelInceptionDistance

        subsets = 1 if len(real) == len(fake) else SUBSETS
        metric = KernelInceptionDistance(
            feature=_Rows(real.shape[1]), subsets=subsets, subset_size=min(len(real), len(fake))
        )
    metric.update(_as_rows(real), real=True)
    metric.update(_as_rows(fake), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return float(metric.compute()[0])


def bootstrap_interval(real: np.ndarray, fake: np.ndarray) -> Interval:
    """Return in what the Fréchet distance of other clips of the same n would lie, 19 times in 20.

    Rows of both sides are drawn with repetition. Repeated rows make the distance larger by themselves, so that what is
    taken is how far a draw is from the mean of the draws, around the distance of the rows as they are.

    Args:
        real: (n, K).
        fake: (m, K).
    """
    random = np.random.default_rng(_SEED)
    drawn = np.array(
        [
            _distance_of_rows(
                real[random.integers(len(real), size=len(real))], fake[random.integers(len(fake), size=len(fake))]
            )
            for _ in range(RESAMPLES)
        ]
    )
    low, high = np.quantile(drawn - drawn.mean(), [0.025, 0.975])
    value = _distance_of_rows(real, fake)
    return Interval(float(value + low), float(value + high))


def curve_over_n(real: np.ndarray, fake: np.ndarray) -> Curve:
    """Return the Fréchet distance over the number of clips, as many of either side, up to that of the smaller one.

    Rows are taken that stand side by side, from a random place on: where clips come in rounds, each of which shows
    everything once, a part of them is as even as the whole.

    Args:
        real: (n, K).
        fake: (m, K).

    Raises:
        ValueError: a side has fewer than 12 rows, of which no curve is made.
    """
    most = min(len(real), len(fake))
    least = max(_LEAST, most // 4)  # of fewer the distance is no line over 1/n
    if most < 2 * least:
        raise ValueError(f"a curve over n needs 12 clips of either side, and there are {len(real)} and {len(fake)}")
    random = np.random.default_rng(_SEED)
    counts = sorted({round(1 / inverse) for inverse in np.linspace(1 / least, 1 / most, _CURVE_POINTS)})
    points = []
    for n in counts:
        drawn = [_distance_of_rows(_block(real, n, random), _block(fake, n, random)) for _ in range(_CURVE_DRAWS)]
        points.append(CurvePoint(n, float(np.mean(drawn))))
    inverse = np.array([1 / point.n for point in points])
    distances = np.array([point.distance for point in points])
    slope, at_infinity = np.polyfit(inverse, distances, 1)
    left = distances - (slope * inverse + at_infinity)
    return Curve(points, float(at_infinity), float(1 - left.var() / distances.var()))


def _block(rows: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """Return n rows side by side, the first after the last."""
    return np.roll(rows, -int(random.integers(len(rows))), axis=0)[:n]


def check_rows(real: np.ndarray, fake: np.ndarray) -> None:
    """Refuse features that have no distance.

    Args:
        real: (n, K).
        fake: (m, K).

    Raises:
        ValueError: a side has fewer than two rows, not as many features as the other, or what is no finite number.
    """
    for side, rows in (("real", real), ("made", fake)):
        if rows.ndim != 2 or len(rows) < 2:
            raise ValueError(f"{len(rows)} {side} clips: a covariance needs 2 at least, and a figure many more")
        if not np.isfinite(rows).all():
            bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise ValueError(f"features of {side} clip {bad} are not all finite numbers (nan or inf)")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"{real.shape[1]} features of real and {fake.shape[1]} of made clips: not of one extractor")


def _distance_of_rows(real: np.ndarray, fake: np.ndarray) -> float:
    """Return what `frechet_distance` does, by an (n, m) matrix in place of two of (K, K): fast where n is small.

    With A and B the rows less their mean, over sqrt(n - 1), the covariances are A'A and B'B, and the trace of the root
    of their product is the sum of the singular values of A B'.
    """
    means = real.mean(axis=0) - fake.mean(axis=0)
    a = (real - real.mean(axis=0)) / math.sqrt(len(real) - 1)
    b = (fake - fake.mean(axis=0)) / math.sqrt(len(fake) - 1)
    common = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(means @ means + (a**2).sum() + (b**2).sum() - 2 * common)


def _as_rows(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows, np.float64))
