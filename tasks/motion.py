"""How a picture moves to the next one, the camera's motion and that of objects apart: pure functions of grey pictures.

Vectors come from `dense`, or from a network (`tasks/raft.py`); all that follows is the same for both. Lengths are per
cent of the picture's diagonal per frame. Costs are CPU time at 256 x 144 on one core of a small server.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np

_SPARSE = 4  # pixels from one vector that is looked at to the next: the estimator's patches are 8 wide
_GRID = 8  # pixels from one vector that the camera is fitted to, to the next
_FASTEST = 0.05  # share of the pixels taken as the moving part
_GAINED_LEVELS = 1  # a vector that explains the picture better by more than this is no guess
_NEAR = np.ones((5, 5), np.uint8)  # what is near a place, in vectors looked at: 8 pixels to each side
_CAMERA_PIXELS = 0.75  # a vector so near to what the camera does belongs to the background
_TRIES = 200  # of RANSAC: all but certain to hit two of 40 % of the vectors
_MIN_BACKGROUND = 0.4  # share of the vectors that must agree, or there is no telling what the camera does
_CELL = np.ones((4, 4), np.uint8)
_DETAIL_LEVELS = 8  # from the darkest to the lightest of a cell: less is flat
_MIN_SPREAD = 0.18  # standard deviation of their places, as a share of the picture; all over it is 0.29
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
    """Mean of those vectors, per cent of the width per frame, positive to the right."""
    y: float
    """Per cent of the height per frame, positive downwards."""
    camera: float
    """How far the camera's motion (shift, turn, zoom) moves the picture: mean over it."""
    objects: float
    """As `amount`, of what the vectors are beyond the camera's motion."""
    moved: np.ndarray
    """The first picture moved by the vectors: what the second is like if they are right."""


@lru_cache(maxsize=1)
def _estimator() -> cv2.DISOpticalFlow:
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)


def dense(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the motion of every pixel from one grey picture to the next, float32 (height, width, 2): pixels.

    Dense inverse search (Kroeger et al., arXiv 1603.03590), OpenCV's fastest preset. Cost 0.3 ms.
    """
    return _estimator().calc(before, after, _NONE)


def between(before: np.ndarray, after: np.ndarray, estimate: Estimator = dense) -> Motion:
    """Return how one grey picture, uint8 (height, width), moves to the next. Cost 0.8 ms by `dense`."""
    vectors = estimate(before, after)
    moved = _warped(before, vectors)
    sparse = vectors[_SPARSE // 2 :: _SPARSE, _SPARSE // 2 :: _SPARSE]
    x, y, amount = _fastest(sparse, _is_explained(after, moved, before), before.shape)
    transform = camera_transform(before, vectors)
    by_camera = cv2.warpAffine(before, transform, before.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    at = _places(*before.shape, _SPARSE)
    camera = cv2.transform(at, transform) - at
    *_, objects = _fastest(sparse - camera, _is_explained(after, moved, by_camera), before.shape)
    camera_amount = 100 * float(np.hypot(camera[..., 0], camera[..., 1]).mean() / np.hypot(*before.shape))
    return Motion(amount, x, y, camera_amount, objects, moved)


@lru_cache(maxsize=16)
def _places(height: int, width: int, every: int) -> np.ndarray:
    """Return the (x, y) of pixels `every` apart, float32 (rows, columns, 2)."""
    y, x = np.mgrid[every // 2 : height : every, every // 2 : width : every]
    return np.stack([x, y], axis=-1).astype(np.float32)


def _warped(before: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    came_from = _places(*before.shape, 1) - vectors
    return cv2.remap(before, came_from, _NONE, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _is_explained(after: np.ndarray, moved: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Return near which vectors the picture `moved` by them is more like `after` than `otherwise` is.

    In flat areas, in noise, and where something comes in at the edge, vectors are guesses, and explain nothing.
    """
    lighter = (cv2.mean(after)[0] + 1) / (cv2.mean(moved)[0] + 1)  # so that a flash or a fade moves nothing
    rest, other = (
        cv2.blur(cv2.absdiff(after, cv2.convertScaleAbs(picture, alpha=lighter)), (5, 5))
        for picture in (moved, otherwise)
    )
    gained = cv2.subtract(other, rest)[_SPARSE // 2 :: _SPARSE, _SPARSE // 2 :: _SPARSE]
    return cv2.dilate((gained > _GAINED_LEVELS).view(np.uint8), _NEAR) > 0


def _fastest(vectors: np.ndarray, counts: np.ndarray, shape: tuple[int, int]) -> tuple[float, float, float]:
    """Return x, y and amount of the fastest of the vectors that count; the others count as 0."""
    vectors = (vectors * counts[..., None]).reshape(-1, 2)
    length = np.hypot(vectors[:, 0], vectors[:, 1])
    number = max(1, int(_FASTEST * length.size))
    fastest = np.argpartition(length, length.size - number)[-number:]
    x, y = vectors[fastest].mean(axis=0, dtype=np.float64)
    amount = length[fastest].mean(dtype=np.float64) / np.hypot(*shape)
    return 100 * float(x) / shape[1], 100 * float(y) / shape[0], 100 * float(amount)


def camera_transform(grey: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return how the camera moves the picture: float (2, 3), a shift, turn and zoom that most of the vectors share.

    By RANSAC (OpenCV's, which seeds itself anew each time) over vectors 8 pixels apart. The camera stands still
    unless enough vectors agree, and among them, across the picture, some of places with detail: what moves over a flat
    background takes the vectors of the background along. Zooms and turns come out a tenth too small with `dense`,
    which works at a quarter of the resolution. Cost 0.1 ms.

    Args:
        grey: the first of the two pictures.
        vectors: from it to the next, of every pixel.
    """
    middle = slice(_GRID // 2, None, _GRID)
    at = _places(*grey.shape, _GRID)
    to = at + vectors[middle, middle]
    found, agree = cv2.estimateAffinePartial2D(
        at.reshape(-1, 2), to.reshape(-1, 2), ransacReprojThreshold=_CAMERA_PIXELS, maxIters=_TRIES
    )
    if found is None or agree.mean() < _MIN_BACKGROUND:
        return _STILL
    half = np.ascontiguousarray(grey[::2, ::2])
    middle = slice(_GRID // 4, None, _GRID // 2)
    detail = cv2.morphologyEx(half, cv2.MORPH_GRADIENT, _CELL)[middle, middle]
    seen = at[(detail > _DETAIL_LEVELS) & (agree.reshape(detail.shape) > 0)]
    is_spread = len(seen) > 0 and (seen.std(axis=0) / grey.shape[::-1]).max() > _MIN_SPREAD
    return found if is_spread else _STILL
