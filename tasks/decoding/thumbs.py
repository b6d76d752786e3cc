"""Tiny pictures of frames, and which part of them is the picture: bars and a station's sign are not."""

from typing import NamedTuple

import cv2
import numpy as np

_PIXELS = 32  # of a thumb's longer side
_STILL_LEVELS = 2.0  # standard deviation over time of what does not change: encoding leaves noise
_STILL = 0.15  # of what changes most: what does not change
_DARK_LEVELS = 30.0  # of luma as coded, of a bar
_BAR = 0.75  # share of a line's pixels that are dark in a bar; a sign may stand in it
_MIN_ACTIVE = 0.2  # share of the picture that is left between bars, at least
_MAX_SIGN = 0.15  # share of the picture between bars that a sign takes; more is a picture in which little moves
_FLOOR = 4.0  # levels of contrast that are noise


def thumb(luma: np.ndarray) -> np.ndarray:
    """Return a tiny version of a picture, uint8 (height, width). Cost 10 us."""
    # by a whole number: OpenCV's area interpolation takes twenty times as long otherwise
    factor = min(max(1, max(luma.shape) // _PIXELS), *luma.shape)  # a sliver has a line of pixels at least
    height, width = (side // factor for side in luma.shape)
    whole = luma[: height * factor, : width * factor]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)


class Active(NamedTuple):
    """The part of neighbouring frames that is the picture."""

    thumbs: np.ndarray
    """float32 (frames, pixels)."""
    lights: np.ndarray
    """(frames,) mean of the colour channels, 0 to 255."""
    share: float
    """Of the whole frame, without its bars; 1 where there are none."""


def active(thumbs: np.ndarray, lights: np.ndarray) -> Active:
    """Find what is the picture in neighbouring frames.

    Bars are lines at the edges that are dark and do not change; a sign does not change while nearly all else does.

    Args:
        thumbs: uint8 (frames, height, width); lights: (frames,) mean of the frame's colour channels, 0 to 255.
    """
    all_pixels = thumbs.astype(np.float32)
    spread = all_pixels.std(axis=0)
    is_still = spread < min(_STILL_LEVELS, _STILL * float(np.quantile(spread, 0.9)))
    is_dark = is_still & (all_pixels.mean(axis=0) < _DARK_LEVELS)
    rows, columns = (_between(is_still.all(axis=axis) & (is_dark.mean(axis=axis) >= _BAR)) for axis in (1, 0))
    is_active = np.zeros(is_still.shape, bool)
    is_active[rows, columns] = True
    share = float(is_active.mean())
    if share < _MIN_ACTIVE:
        is_active[:], share = True, 1.0
    is_sign = is_still & is_active
    if 0 < is_sign.sum() <= _MAX_SIGN * is_active.sum():
        is_active &= cv2.dilate(is_sign.view(np.uint8), np.ones((3, 3), np.uint8)) == 0
    if is_active.all():
        return Active(all_pixels.reshape(len(thumbs), -1), lights, share)
    # what is left out is not as bright in all colours as in luma, but it is black or near white
    beside = ((all_pixels[:, ~is_active] - 16) * (255 / 219)).clip(0, 255).sum(axis=1)
    lit = (lights * is_active.size - beside) / np.count_nonzero(is_active)
    return Active(np.ascontiguousarray(all_pixels[:, is_active]), lit, share)


def _between(is_bar: np.ndarray) -> slice:
    """Return the lines between the bars at both ends."""
    inside = np.flatnonzero(~is_bar)
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


def structure(thumbs: np.ndarray) -> np.ndarray:
    """Return how much of what is seen changes from the frame before: 0 nothing, 100 two unrelated pictures. (frames,)

    Args:
        thumbs: float32 (frames, pixels).
    """
    centred = thumbs - thumbs.mean(axis=1, keepdims=True)
    variance = np.mean(centred**2, axis=1)
    change = np.sqrt(np.mean(np.diff(centred, axis=0) ** 2, axis=1))
    there = np.sqrt(variance[1:] + variance[:-1] + _FLOOR**2)
    return np.concatenate([[0.0], 100 * change / there])
