"""Score quality: how well a picture was shot and stored, whatever it shows, without learnt weights.

Four flaws are measured, each turned into a share from 0 (ruined) to 1 (flawless), and multiplied: blur, noise,
the edges of compressed blocks, and exposure. Each share falls as its flaw grows, and hardly reacts to the others.

What stills of `shots.analysis_pixels` do not show is not seen: a larger video's blocks are gone once it is small,
so there heavy compression costs only the detail that it took.
"""

import cv2
import numpy as np

_SIDE = 256  # pixels of the longer side at which blur is measured: the same picture at two sizes has one blur
_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_REBLUR = 9  # pixels
_EDGE = 1.0  # steps of grey levels between neighbours that are more are edges, and count by what they are more ...
_EDGE_NOISES = 1.4  # ... and in deviations of the noise
_EDGES = 0.001  # share of the pixels, below which a picture has no edge to judge by
_GRID = 8  # pixels of a JPEG's or MPEG's block
_PATCH = 8  # pixels
_DARK, _BRIGHT = 3, 252  # grey levels at which shadows and lights are lost
_TAIL = 0.1  # share of the pixels whose mean is the end of the range: one level would jump between light and dark parts
_RANGE = 0.65  # of all levels, between the means of the two tails: what a well exposed picture uses
_BARS = 24  # a border no pixel of which is brighter is a black bar


def quality(picture: np.ndarray) -> float:
    """Return 0 to 1: the technical quality of a BGR picture; clean footage has about 0.6 to 0.9.

    Each alone takes half of it: noise of 4 grey levels (standard deviation), block edges of 5 levels, a blur of 2
    of 256 pixels (standard deviation), or lost contrast that leaves a third of the range of brightness. Cost: 2 ms at
    256 x 144.
    """
    grey = _without_bars(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))
    noisy = noise(grey)
    sharp = 1 - blur(grey, noisy) ** 2
    clean = 1 / (1 + (noisy / 4) ** 2)
    whole = 1 / (1 + max(0.0, blockiness(grey) - 0.8) / 4)  # up to 0.8 levels is the stills' own JPEG
    return sharp * clean * whole * exposure(grey)


def blur(grey: np.ndarray, noisy: float) -> float:
    """Return 0 (sharp) to 1 (blurred): how little of its edges a grey picture loses when it is blurred again.

    The no-reference metric of Crété-Roffet and others ("The blur effect", 2007), measured on edges that stand
    out of the noise, whose standard deviation is `noisy` grey levels. A picture without any edge has 1.
    """
    scale = _SIDE / max(grey.shape)
    sized = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    smooth = cv2.GaussianBlur(sized, (0, 0), 1.0).astype(np.float32)  # keeps noise from passing as sharp edges
    return max(_blur_along(smooth, axis, _EDGE + _EDGE_NOISES * noisy) for axis in (0, 1))


def _blur_along(smooth: np.ndarray, axis: int, least: float) -> float:
    again = cv2.blur(smooth, (1, _REBLUR) if axis == 0 else (_REBLUR, 1))
    steps, left = np.abs(np.diff(smooth, axis=axis)), np.abs(np.diff(again, axis=axis))
    edges = (steps - least).clip(0)
    if np.count_nonzero(edges) < _EDGES * steps.size:
        return 1.0
    lost = np.vdot(np.maximum(0, steps - left), edges)
    return 1 - float(lost / np.vdot(steps, edges))


def noise(grey: np.ndarray) -> float:
    """Return the standard deviation of a grey picture's noise, in grey levels.

    Immerkær's difference of Laplacians ("Fast Noise Variance Estimation", 1996), of the tenth of the patches that
    has least of it: texture is not noise. Patches too dark or bright to show noise are left out.
    """
    residue = np.abs(cv2.filter2D(grey, cv2.CV_32F, _LAPLACIANS))
    shown = _patch_means(grey)
    patches = _patch_means(residue)[(shown > 4 * _DARK) & (shown < 255 - 4 * _DARK)]
    if not patches.size:
        return 0.0
    return float(np.percentile(patches, 10)) * float(np.sqrt(np.pi / 2)) / 6


def _patch_means(plane: np.ndarray) -> np.ndarray:
    rows, columns = (side // _PATCH for side in plane.shape)
    patches = plane[: rows * _PATCH, : columns * _PATCH].reshape(rows, _PATCH, columns, _PATCH)
    return patches.mean(axis=(1, 3), dtype=np.float64)


def blockiness(grey: np.ndarray) -> float:
    """Return by how many grey levels a grey picture's blocks of 8 pixels stand out at their edges; 0 is not at all.

    Every eighth line of pixels is compared with its neighbours, for each of the eight places that the grid may
    have; the median over the lines keeps an edge of the scene from passing as one of the grid.
    """
    return float(np.mean([_blockiness_along(grey.astype(np.float32), axis) for axis in (0, 1)]))


def _blockiness_along(grey: np.ndarray, axis: int) -> float:
    if grey.shape[axis] < 4 * _GRID:
        return 0.0
    steps = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis, dtype=np.float64)
    excess = steps[1:-1] - (steps[:-2] + steps[2:]) / 2
    *_, second, first = sorted(float(np.median(excess[place::_GRID])) for place in range(_GRID))
    return max(0.0, first - max(0.0, second))


def exposure(grey: np.ndarray) -> float:
    """Return 0 to 1: how much of the range of brightness a grey picture uses without losing lights and shadows."""
    levels = np.sort(grey, axis=None)
    tail = max(1, round(_TAIL * levels.size))
    low, high = levels[:tail].mean(dtype=np.float64), levels[-tail:].mean(dtype=np.float64)
    lost_lights, lost_shadows = float((grey >= _BRIGHT).mean()), float((grey <= _DARK).mean())
    return min(1.0, float(high - low) / (_RANGE * 255)) * (1 - lost_lights) ** 2 * (1 - lost_shadows)


def _without_bars(grey: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero(grey.max(axis=axis) > _BARS) for axis in (1, 0))
    if not rows.size:
        return grey
    return np.ascontiguousarray(grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
