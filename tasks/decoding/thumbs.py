"""Tiny pictures of frames, and which part of them is the picture: bars and a station's sign are not."""

from typing import NamedTuple

import cv2
import numpy as np

_PIXELS = 64  # of a thumb's longer side
_FINE_SHARE = 0.45  # of the picture is active: less, and thumbs are used as fine as they are, more, at half the size
_LOOK_EVERY = 4  # frames, to find what does not change
_STILL_LEVELS = 2.0  # standard deviation over time of what does not change: encoding leaves noise
_STILL = 0.15  # of what changes most: what does not change
_DARK_LEVELS = 30.0  # of luma as coded, of a bar
_BAR = 0.75  # share of a line's pixels that are dark in a bar; a sign may stand in it
_MIN_ACTIVE = 0.2  # share of the picture that is left between bars, at least
_SIGN_LEVELS = 18.0  # that a sign is above black, or below white, in every frame
_MAX_SIGN = 0.15  # share of the picture between bars that a sign takes
_SIGN_BESIDE = 10.0  # levels of contrast beside a sign, in the median frame: less, and it is what the shot shows
_MIN_SPREAD = 0.06  # of a change over the picture
_MAX_LOCAL = 50.0  # of structure, where the change is less spread
_FLOOR = 6.0  # levels of contrast that are noise


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
    peaks: np.ndarray
    """(frames,) levels from the darkest to the brightest pixel between the bars, signs too."""


def active(thumbs: np.ndarray, lights: np.ndarray) -> Active:
    """Find what is the picture in neighbouring frames.

    Bars are lines at the edges that are dark and do not change. A sign is what is never as dark as the rest is at
    times, or never as bright: in a fade through black or white it stays.

    Args:
        thumbs: uint8 (frames, height, width); lights: (frames,) mean of the frame's colour channels, 0 to 255.
    """
    spread = thumbs[::_LOOK_EVERY].std(axis=0, dtype=np.float32)
    is_still = spread < min(_STILL_LEVELS, _STILL * float(np.quantile(spread, 0.9)))
    is_dark = is_still & (thumbs[::_LOOK_EVERY].mean(axis=0, dtype=np.float32) < _DARK_LEVELS)
    rows, columns = (_between(is_still.all(axis=axis) & (is_dark.mean(axis=axis) >= _BAR)) for axis in (1, 0))
    height, width = thumbs.shape[1:]
    share = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    if share < _MIN_ACTIVE:
        rows, columns, share = slice(0, height), slice(0, width), 1.0
    is_used = np.zeros((height, width), bool)
    is_used[_without_edge(rows, height), _without_edge(columns, width)] = True
    lights = _without(lights, thumbs[:, ~is_used], float(is_used.mean()))
    picture = thumbs[:, _without_edge(rows, height), _without_edge(columns, width)]
    picture = (picture if share < _FINE_SHARE else _halved(picture)).reshape(len(thumbs), -1).astype(np.float32)
    peaks = picture.max(axis=1) - picture.min(axis=1)
    is_sign = _signs(picture)
    if is_sign.any():
        lights = _without(lights, picture[:, is_sign], 1 - float(is_sign.mean()))
        picture = picture[:, ~is_sign]
    return Active(picture, lights, share, peaks)


def _without(lights: np.ndarray, beside: np.ndarray, share: float) -> np.ndarray:
    """Return the light (frames,) of `share` of the picture; `beside` is the luma (frames, pixels) of the rest."""
    if share == 1:
        return lights
    # it is not as bright in all colours as in luma, but it is black, or near white
    lit = ((beside.astype(np.float32) - 16) * (255 / 219)).clip(0, 255).mean(axis=1)
    return (lights - (1 - share) * lit) / share


def _without_edge(lines: slice, count: int) -> slice:
    """Leave out the line that a bar shares with the picture."""
    first, end = lines.start + (lines.start > 0), lines.stop - (lines.stop < count)
    return slice(first, end) if end > first else lines


def _signs(picture: np.ndarray) -> np.ndarray:
    """Return which pixels of a picture (frames, pixels) are a sign, bool (pixels,)."""
    is_sign = np.zeros(picture.shape[1], bool)
    for levels in (picture, 255 - picture):
        darkest = levels.min(axis=0)
        is_one = darkest > darkest.min() + _SIGN_LEVELS
        if not 0 < is_one.mean() <= _MAX_SIGN:
            continue
        beside = levels[:, ~is_one]
        if np.median(beside[::_LOOK_EVERY].std(axis=1)) < _SIGN_BESIDE:
            continue
        faded = levels[(beside.max(axis=1) < darkest.min() + _SIGN_LEVELS)][:, is_one]
        # what covers black covers the pictures too: there it is no darker
        if len(faded):
            is_sign[np.flatnonzero(is_one)[np.median(faded, axis=0) < darkest[is_one] + _SIGN_LEVELS]] = True
    return is_sign


def _halved(thumbs: np.ndarray) -> np.ndarray:
    """Average blocks of 2 x 2: float32 (frames, height / 2, width / 2); an odd last line is left out."""
    height, width = (side // 2 for side in thumbs.shape[1:])
    if not height or not width:
        return thumbs
    return thumbs[:, : 2 * height, : 2 * width].reshape(-1, height, 2, width, 2).mean(axis=(2, 4), dtype=np.float32)


def _between(is_bar: np.ndarray) -> slice:
    """Return the lines between the bars at both ends."""
    inside = np.flatnonzero(~is_bar)
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


def structure(thumbs: np.ndarray) -> np.ndarray:
    """Return how much of what is seen changes from the frame before: 0 nothing, 100 two unrelated pictures. (frames,)

    What changes in a small part of the picture only is a thing that moves, and counts as half at most.

    Args:
        thumbs: float32 (frames, pixels).
    """
    centred = thumbs - thumbs.mean(axis=1, keepdims=True)
    variance = np.mean(centred**2, axis=1)
    squares = np.diff(centred, axis=0) ** 2
    change = squares.mean(axis=1)
    # participation ratio: 1 where all pixels change alike, 1 / n where one of n does
    is_spread = change**2 >= _MIN_SPREAD * np.mean(squares**2, axis=1)
    there = variance[1:] + variance[:-1] + _FLOOR**2
    found = 100 * np.sqrt(change / there)
    return np.concatenate([[0.0], np.where(is_spread, found, np.minimum(found, _MAX_LOCAL))])
