"""How a picture moves to the next one, the camera's motion and that of objects apart: pure functions of grey pictures.

Vectors come from `dense`, or from a network (`tasks/decoding/raft.py`); all that follows is the same for both. Lengths
are per cent of the picture's diagonal per frame. Costs are CPU time at 256 x 144 on one core of a small server.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np

_SPARSE = 4  # pixels from one vector that is looked at to the next: the estimator's patches are 8 wide
_GRID = 8  # pixels from one vector that the camera is fitted to, to the next
_FASTEST = 0.05  # share of the pixels taken as the moving part
_BROAD = (11, 11)  # pixels at half the size: a difference as broad as this is of light, or of fog, not of what moves
_AROUND = (3, 3)  # of them, over which a difference is taken
_PARTS = 16  # of a level, in whole numbers: these are fast, and a level is coarse
_BESIDE = (3, 3)  # vectors looked at
_PATCH = (9, 9)  # pixels at half the size, about a vector, whose gradients say what it can know
_NOISE_ENERGY = 0.1  # of a gradient, levels per pixel squared: less tells nothing ...
_LEAST_SHARE = 0.02  # ... and so does what is less than this share of the gradients of both directions together
_LEAST_LENGTH = 1e-9  # so that what does not move has no direction
_NEAR = np.ones((5, 5), np.uint8)  # what is near a place, in vectors looked at: 8 pixels to each side
_GAINED_LEVELS = (1.0, 3.5)  # a vector that explains the picture better by so much counts from not at all to whole
_HARDLY_PIXELS = (3.0, 1.0)  # so short, a vector as good as says that nothing moves: from not at all to whole
_CAMERA_PIXELS = 0.75  # a vector so near to what the camera does belongs to the background, for RANSAC ...
_BACKGROUND_PIXELS = (1.0, 0.5)  # ... and in what is weighed, from not at all to whole
_TRIES = 200  # of RANSAC: all but certain to hit two of 40 % of the vectors
_BACKGROUND = (0.3, 0.5)  # share of the vectors that agree on what the camera does: it counts from not at all to whole
_CELL = np.ones((4, 4), np.uint8)
_DETAIL_LEVELS = (4.0, 12.0)  # from the darkest to the lightest of a cell: from flat to one with detail
_SPREAD = (0.15, 0.21)  # standard deviation of the places with detail, as a share of the picture; all over it is 0.29
_NONE: Any = None  # where OpenCV's stubs demand an array that may be left out
_STILL = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


Estimator = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From one grey picture, uint8 (height, width), and the next to the motion of every pixel, as `dense` gives it."""


class Motion(NamedTuple):
    """Movement from one frame to the next."""

    amount: float
    """Mean length of the vectors of the fastest twentieth of the picture; 0 is still, 20 a whip pan.

    A small thing that moves over a still background hardly shows in the mean over the picture; and the very fastest
    pixel is noise.
    """
    x: float
    """The part of `amount` to the right, per cent of the width per frame, of the direction in which vectors go.

    Of the mean of all directions, by the vectors' squared lengths: what goes all ways at once goes nowhere.
    """
    y: float
    """The part downwards, per cent of the height per frame."""
    camera: float
    """How far the camera's motion (shift, turn, zoom) moves the picture: mean over it.

    Less of it the less sure it is that there is one (`camera_transform`), down to nothing.
    """
    objects: float
    """As `amount`, of what the vectors are beyond the camera's motion."""
    moved: np.ndarray
    """The first picture moved by the vectors: what the second is like if they are right."""


@lru_cache(maxsize=4)
def _estimator(shape: tuple[int, ...]) -> cv2.DISOpticalFlow:
    """Return the estimator for pictures of this shape: one that has seen a very small one keeps to coarser scales."""
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)


def dense(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the motion of every pixel from one grey picture to the next, float32 (height, width, 2): pixels.

    Dense inverse search (Kroeger et al., arXiv 1603.03590), OpenCV's fastest preset. Cost 0.3 ms.
    """
    return _estimator(before.shape).calc(before, after, _NONE)


def between(before: np.ndarray, after: np.ndarray, estimate: Estimator = dense) -> Motion:
    """Return how one grey picture, uint8 (height, width), moves to the next. Cost 1.3 ms by `dense`."""
    vectors = estimate(before, after)
    transform = camera_transform(before, vectors)
    moved = _warped(before, vectors)
    by_camera = cv2.warpAffine(before, transform, before.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    half_before, half_after = _half(before), _half(after)
    left, as_still, as_camera = (
        _difference(half_after, picture) for picture in (_half(moved), half_before, _half(by_camera))
    )
    sparse = np.ascontiguousarray(vectors[_SPARSE // 2 :: _SPARSE, _SPARSE // 2 :: _SPARSE])
    at = _places(*before.shape, _SPARSE)
    camera = cv2.transform(at, transform) - at
    gradients = _gradients(half_before)
    moves = _explained(as_still, left)
    x, y, amount = _fastest(sparse, moves, gradients, before.shape)
    # What stands still before a moving camera is an object; but a vector that says more must also be better than none
    stays = share(_length(sparse), *_HARDLY_PIXELS)
    moves_apart = _explained(as_camera, left) * np.maximum(moves, stays)
    *_, objects = _fastest(sparse - camera, moves_apart, gradients, before.shape)
    camera_amount = 100 * float(_length(camera).mean() / np.hypot(*before.shape))
    return Motion(amount, x, y, camera_amount, objects, moved)


def share(values: np.ndarray, nothing: float, whole: float) -> np.ndarray:
    """Return 0 for values up to `nothing`, 1 from `whole` on (or the other way round), and parts between.

    A limit that is passed all at once makes a small change of the picture a large one of a score.
    """
    return ((values - nothing) * (1 / (whole - nothing))).clip(0, 1)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.hypot(vectors[..., 0], vectors[..., 1])


@lru_cache(maxsize=16)
def _places(height: int, width: int, every: int) -> np.ndarray:
    """Return the (x, y) of pixels `every` apart, float32 (rows, columns, 2)."""
    y, x = np.mgrid[every // 2 : height : every, every // 2 : width : every]
    return np.stack([x, y], axis=-1).astype(np.float32)


def _warped(before: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    came_from = _places(*before.shape, 1) - vectors
    return cv2.remap(before, came_from, _NONE, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _half(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def _difference(after: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Return by how many levels a picture is unlike `after`, around each of the vectors looked at: float32.

    But for the light, of all and of broad parts: a flash, a fade and drifting fog move nothing.

    Args:
        after, picture: both at half the size.
    """
    lighter = (cv2.mean(after)[0] + 1) / (cv2.mean(picture)[0] + 1)
    difference = cv2.addWeighted(after, _PARTS, picture, -_PARTS * lighter, 0, dtype=cv2.CV_16S)
    fine = cv2.blur(cv2.absdiff(difference, cv2.blur(difference, _BROAD)), _AROUND)
    return fine[_SPARSE // 4 :: _SPARSE // 2, _SPARSE // 4 :: _SPARSE // 2] * np.float32(1 / _PARTS)


def _explained(otherwise: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return 0 to 1: how far each vector makes less of a difference, `left`, than there is `otherwise`.

    In flat areas, in noise, and where something comes in at the edge, vectors are guesses, and explain nothing.
    """
    return share(otherwise - left, *_GAINED_LEVELS)


def _gradients(half: np.ndarray) -> np.ndarray:
    """Return the structure tensor around each of the vectors looked at: float32 (rows, columns, 3), xx, xy and yy.

    Args:
        half: the grey picture at half the size.
    """
    along_x, along_y = cv2.spatialGradient(half)
    products = np.empty((*half.shape, 3), np.float32)
    for place, (one, other) in enumerate(((along_x, along_x), (along_x, along_y), (along_y, along_y))):
        products[..., place] = cv2.multiply(one, other, scale=1 / 64, dtype=cv2.CV_32F)  # Sobel's weights add up to 8
    around = cv2.blur(products, _PATCH)
    return np.ascontiguousarray(around[_SPARSE // 4 :: _SPARSE // 2, _SPARSE // 4 :: _SPARSE // 2])


def _fastest(
    vectors: np.ndarray, counts: np.ndarray, gradients: np.ndarray, shape: tuple[int, int]
) -> tuple[float, float, float]:
    """Return x, y and amount of the fastest vectors; each is taken as far as one near it counts (0 to 1)."""
    vectors = (_sure(vectors, counts, gradients) * cv2.dilate(counts, _NEAR)[..., None]).reshape(-1, 2)
    length = _length(vectors)
    number = max(1, int(_FASTEST * length.size))
    amount = np.sort(length)[-number:].mean(dtype=np.float64)  # of many equal lengths np.partition is the slower one
    x, y = amount * (length @ vectors) / max(length @ length, _LEAST_LENGTH)
    return 100 * float(x) / shape[1], 100 * float(y) / shape[0], 100 * float(amount / np.hypot(*shape))


def _sure(vectors: np.ndarray, counts: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return what the vectors beside each place know together about its motion, as far as they count.

    The least squares of Lucas and Kanade (1981), whose data are not pixels but vectors with their structure tensors:
    of an edge a vector knows how it moves across, not along it, and of flat ground nothing. A little of the
    tensor's trace, and of noise, holds what nobody knows at nothing, where the estimator has guesses.
    """
    x, y = vectors[..., 0], vectors[..., 1]
    xx, xy, yy = np.moveaxis(gradients, -1, 0)
    known = np.dstack([xx, xy, yy, xx * x + xy * y, xy * x + yy * y]) * counts[..., None]
    xx, xy, yy, towards_x, towards_y = np.moveaxis(cv2.blur(known, _BESIDE), -1, 0)
    least = _NOISE_ENERGY + _LEAST_SHARE * (xx + yy)
    xx, yy = xx + least, yy + least
    whole = (1 + 2 * _LEAST_SHARE) / (xx * yy - xy * xy)  # as if the share of the trace took nothing of a full vector
    return np.dstack([yy * towards_x - xy * towards_y, xx * towards_y - xy * towards_x]) * whole[..., None]


def camera_transform(grey: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return how the camera moves the picture: float (2, 3), a shift, turn and zoom that most of the vectors share.

    By RANSAC (OpenCV's, which seeds itself anew each time) over vectors 8 pixels apart. The fewer vectors agree, and
    the less of the picture those with detail are spread over, the less of it counts as the camera's, down to nothing:
    what moves over a flat background takes the vectors of the background along. Zooms and turns come out a tenth too
    small with `dense`, which works at a quarter of the resolution. Cost 0.1 ms.

    Args:
        grey: the first of the two pictures.
        vectors: from it to the next, of every pixel.
    """
    middle = slice(_GRID // 2, None, _GRID)
    at = _places(*grey.shape, _GRID)
    to = at + vectors[middle, middle]
    found, _ = cv2.estimateAffinePartial2D(
        at.reshape(-1, 2), to.reshape(-1, 2), ransacReprojThreshold=_CAMERA_PIXELS, maxIters=_TRIES
    )
    if found is None:
        return _STILL
    agree = share(_length(cv2.transform(at, found) - to), *_BACKGROUND_PIXELS)
    spread = _spread(at, agree * _detail(grey)) / grey.shape[::-1]
    sure = share(agree.mean(), *_BACKGROUND) * share(spread.max(), *_SPREAD)
    return _STILL + sure * (found - _STILL)


def _detail(grey: np.ndarray) -> np.ndarray:
    """Return 0 (flat) to 1 (with detail) around each of the vectors that the camera is fitted to."""
    half = np.ascontiguousarray(grey[::2, ::2])
    middle = slice(_GRID // 4, None, _GRID // 2)
    return share(cv2.morphologyEx(half, cv2.MORPH_GRADIENT, _CELL)[middle, middle], *_DETAIL_LEVELS)


def _spread(at: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the standard deviation (x, y) of places by their weights; 0 where none has any."""
    whole = weight.sum()
    if not whole:
        return np.zeros(2)
    weight = weight[..., None] / whole
    mean = (weight * at).sum(axis=(0, 1))
    return np.sqrt((weight * (at - mean) ** 2).sum(axis=(0, 1)))
