"""Gradual transitions, found in the luma of tiny pictures: fades through black or white, and dissolves.

A fade scales the contrast of a picture down to nothing, so contrast is a ramp beside flat frames. In a dissolve
from A to B, frame a is (1 - a) A + a B, so its variance is (1 - a)^2 var A + a^2 var B + 2 a (1 - a) cov(A, B):
a dip that motion inside the shots does not fill and that a moving camera does not make.

Frames are numbered from the first one given. Thumbs are float32 (frames, pixels), of the active picture
(`tasks/decoding/thumbs.py`). The frames of a transition are those that are neither purely the shot before nor purely
the one after.
"""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

REACH = 3.84  # seconds before and after a transition that are looked at for a fade
NEAR = 3.2  # for a dissolve

_MAX_RAMP = 2.88  # seconds from a full picture to black
_BEFORE_RAMP = 0.8  # seconds before a ramp that it is told from; less, and motion shortens the ramps
_MAX_PEAK = 1.5  # of the levels that count as black: a brighter spot is a sign on black
_EVEN = 0.12  # of the usual contrast: what an even picture has at most
_GAP = 0.12  # seconds between flat frames, in which noise may show
_MIN_FADE = 4  # frames of a ramp to grey
_SAME_PICTURE = 0.6  # correlation of a picture that fades to grey with itself half way
_MAX_FLAT = 1.0  # seconds for which a picture is even that has faded out to grey
_RATE = 25.0  # frames per second at about which dissolves are looked for
_SPANS = (0.24, 0.32, 0.4, 0.52, 0.68, 0.88, 1.12, 1.36, 1.7, 2.1, 2.6)  # seconds from the last pure A to the first B
_MIN_SPAN = 4  # frames
_MIN_RAMP = 3  # frames, likewise
_SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)  # of the span, where the dip is compared
_MIN_VARIANCE = 9.0  # levels^2 of a picture that shows anything
_MIN_CHANGE = 20.0  # levels, RMS, from one end of a dissolve to the other
_MAX_CORRELATION = 0.5  # of its ends: more, and the same picture may have moved or changed its light
_MAX_STEP = 0.6  # share of the change that one frame may make: more is a hard cut
_UNRELATED = 0.3  # weight of what a frame has in common with neither end
_MAX_RAMP_ERROR = 0.35  # RMS of the shares of B against a ramp
_MIN_CHANGED_LEVELS = 8.0  # of a pixel that changes at all
_MIN_SPREAD = 0.18  # of the change over the picture: less, and something moves into it
_MIN_BETWEEN = 0.3  # share of the pixels that are between their first and last value in the middle
_ALIKE = 0.3  # weight of the correlation of both ends
_MOVED = 0.5  # weight of what changes all at once, place by place
_MAX_DOUBT = 0.36  # beyond the misfit that is allowed; with both weights it keeps 98 % of known dissolves
_MARGIN = 0.32  # seconds beyond a window in which its ramp may begin or end
_RAMP_STEPS = 40  # places that are tried at most for the beginning of a ramp, and for its end
_USUAL_CONTRAST = 40.0  # levels, standard deviation, of a clear picture, which all levels here are meant for
_MIN_CONTRAST = 5.0  # less is noise, as it stands


class Span(NamedTuple):
    """Frames `first` up to `end`."""

    first: int
    end: int


def is_flat(thumbs: np.ndarray, lights: np.ndarray, threshold: float) -> np.ndarray:
    """Return which frames are black or white all over, bool (frames,).

    Args:
        lights: (frames,) mean of the colour channels, 0 to 255.
        threshold: levels from black, or from white, that count as such.
    """
    is_extreme = (lights < threshold) | (lights > 255 - threshold)
    peaks = thumbs.max(axis=1) - thumbs.min(axis=1)
    return is_extreme & (thumbs.std(axis=1) < threshold / 2) & (peaks < _MAX_PEAK * threshold)


class Fade(NamedTuple):
    """Flat frames with the ramps into and out of them."""

    span: Span
    flat: Span
    is_ramp: bool
    """There is a ramp on one side at least."""


def fades(thumbs: np.ndarray, lights: np.ndarray, threshold: float, fps: float) -> list[Fade]:
    """Find the flat frames with the ramps into and out of them.

    Args:
        lights, threshold: as for `is_flat`.
    """
    contrast = thumbs.std(axis=1, dtype=np.float64)
    is_black = is_flat(thumbs, lights, threshold)
    found = []
    barrier = 0
    firsts, ends = _runs(is_black | _is_even(thumbs, contrast, threshold), contrast < threshold / 2, _GAP * fps)
    for first, end, following in zip(firsts, ends, [*firsts, len(thumbs)][1:], strict=True):
        flat = contrast[first:end]
        lows = np.flatnonzero(flat <= flat.min() + 0.5)
        out = _ramp_before(contrast[barrier : first + lows[0] + 1], fps)
        into = _ramp_before(contrast[first + lows[-1] : following][::-1], fps)
        whole = Span(min(first, first + int(lows[0]) - out + 1), max(end, first + int(lows[-1]) + into))
        if not is_black[first:end].any() and not (
            end - first <= _MAX_FLAT * fps and (_fades(thumbs, first, out) or _fades(thumbs, end - 1, -into))
        ):
            continue  # an even shot
        found.append(Fade(whole, Span(first, end), max(first - whole.first, whole.end - end) > 1))
        barrier = whole.end
    return found


def _runs(is_flat: np.ndarray, is_nearly: np.ndarray, gap: float) -> tuple[list[int], list[int]]:
    """Return where runs of flat frames begin and end; a few in between that are nearly flat break none."""
    edges = np.flatnonzero(np.diff(is_flat, prepend=False, append=False)).tolist()
    firsts, ends = edges[:1], edges[-1:]
    for end, first in zip(edges[1:-1:2], edges[2::2], strict=True):
        if first - end > gap or not is_nearly[end:first].all():
            firsts.append(first)
            ends.insert(-1, end)
    return firsts, ends


def _is_even(thumbs: np.ndarray, contrast: np.ndarray, threshold: float) -> np.ndarray:
    """Return which frames show nothing, at whatever level, beside the contrast of the others; bool (frames,)."""
    peaks = thumbs.max(axis=1) - thumbs.min(axis=1)
    return (contrast < min(threshold / 4, _EVEN * float(np.median(contrast)))) & (peaks < threshold)


def _fades(thumbs: np.ndarray, flat: int, frames: int) -> bool:
    """Say whether the picture that is so many frames before, or after, an even one is still there half way to it."""
    full, half = flat - frames, flat - frames // 2
    if abs(frames) < _MIN_FADE or not 0 <= full < len(thumbs):
        return False
    return bool(np.corrcoef(thumbs[full], thumbs[half])[0, 1] >= _SAME_PICTURE)


def _ramp_before(contrast: np.ndarray, fps: float) -> int:
    """Return over how many frames contrast falls in a straight line to its last value; 1 if all at once."""
    contrast = contrast - contrast[-1]
    errors = []
    for length in range(1, min(round(_MAX_RAMP * fps), len(contrast) - 1) + 1):
        seen = contrast[-(length + 1 + round(_BEFORE_RAMP * fps)) :]
        model = np.minimum(1.0, np.arange(len(seen) - 1, -1, -1) / length)
        full = seen @ model / (model @ model)
        errors.append(np.sqrt(np.mean((seen - full * model) ** 2)) / max(full, 1.0))
    return int(np.argmin(errors)) + 1 if errors else 1


class _Windows(NamedTuple):
    """Candidates: the pure frames at both ends, and how good each is. All (windows,)."""

    first: np.ndarray
    last: np.ndarray
    worth: np.ndarray
    doubt: np.ndarray
    """What speaks against each: its misfit, and how alike its ends are."""


def dissolves(thumbs: np.ndarray, is_barred: np.ndarray, max_misfit: float, fps: float) -> list[Span]:
    """Find the dissolves of about 0.2 to 3 seconds, in order.

    Args:
        is_barred: (frames,) frames that belong to no dissolve, because something else is known of them.
        max_misfit: how far, relative to its depth, the dip of variance may be from that of a dissolve; 0 to 1.
    """
    step = max(1, round(fps / _RATE))
    thumbs = thumbs * _gain(thumbs[~is_barred])
    barred = np.add.reduceat(is_barred, np.arange(0, len(is_barred), step)) > 0
    windows = _windows(thumbs[::step], barred, max_misfit, fps / step)
    found: list[Span] = []
    for at in np.argsort(-windows.worth, kind="stable"):
        first, last = int(windows.first[at]) * step, int(windows.last[at]) * step
        if any(first < other.end and other.first <= last for other in found):
            continue
        doubt = windows.doubt[at] + _MOVED * _moved(thumbs, first, last)
        if doubt > max_misfit + _MAX_DOUBT or not _is_everywhere(thumbs, first, last):
            continue
        span = _ramp(thumbs, first, last, fps)
        if span is not None and not any(span.first < other.end and other.first < span.end for other in found):
            found.append(span)
    return sorted(found)


def _gain(thumbs: np.ndarray) -> float:
    """Return what brings the pictures, in the median, to a usual contrast; 1 where they have it."""
    if not len(thumbs):
        return 1.0
    contrast = float(np.median(thumbs.std(axis=1)))
    return max(1.0, _USUAL_CONTRAST / max(contrast, _MIN_CONTRAST))


def _windows(thumbs: np.ndarray, is_barred: np.ndarray, max_misfit: float, fps: float) -> _Windows:
    centred = thumbs - thumbs.mean(axis=1, keepdims=True)
    products = centred @ centred.T / thumbs.shape[1]
    means = thumbs.mean(axis=1)
    variance = products.diagonal()
    steps = np.sqrt(np.mean(np.diff(thumbs, axis=0) ** 2, axis=1))
    barred = np.concatenate([[0], np.cumsum(is_barred)])
    parts = [(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0), np.zeros(0))]
    for span in sorted({max(_MIN_SPAN, round(seconds * fps)) for seconds in _SPANS}):
        first = np.arange(max(0, len(thumbs) - span))
        if not len(first):
            break
        last = first + span
        correlation = products[first, last] / np.sqrt(variance[first] * variance[last] + 1e-3)
        change = variance[first] + variance[last] - 2 * products[first, last] + (means[last] - means[first]) ** 2
        change = np.sqrt(np.maximum(change, 1e-3))
        largest = sliding_window_view(steps, span).max(axis=1)
        might_be = (
            (correlation <= _MAX_CORRELATION)
            & (np.minimum(variance[first], variance[last]) >= _MIN_VARIANCE)
            & (change >= _MIN_CHANGE)
            & (largest <= _MAX_STEP * change)
            & (barred[last + 1] == barred[first])
        )
        first = first[might_be]
        misfit = _misfit(products, first, span) + _UNRELATED * (1 - _related(products, first, span))
        worth = (2 * max_misfit - misfit) * (change * (1 - correlation))[might_be]
        is_one = misfit <= max_misfit
        doubt = misfit + _ALIKE * np.maximum(0, correlation[might_be])
        parts.append((first[is_one], first[is_one] + span, worth[is_one], doubt[is_one]))
    return _Windows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _misfit(products: np.ndarray, first: np.ndarray, span: int) -> np.ndarray:
    """Return how far the variance is from a dissolve's, relative to the dip: 0 the same, 1 no dip. (windows,)"""
    last, variance = first + span, products.diagonal()
    errors = []
    for share in _SHARES:
        place = round(span * share)
        a = place / span
        straight = (1 - a) * variance[first] + a * variance[last]
        blend = (1 - a) ** 2 * variance[first] + a**2 * variance[last] + 2 * a * (1 - a) * products[first, last]
        errors.append((variance[first + place] - blend) / np.maximum(straight - blend, 1.0))
    return np.sqrt(np.mean(np.square(errors), axis=0))


def _related(products: np.ndarray, first: np.ndarray, span: int) -> np.ndarray:
    """Return the share of the frames' variance that both ends of the window explain, 0 to 1. (windows,)"""
    last, variance = first + span, products.diagonal()

    def correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return products[one, other] / np.sqrt(variance[one] * variance[other] + 1e-3)

    ends = correlation(first, last)
    explained = []
    for share in _SHARES:
        frame = first + round(span * share)
        a, b = correlation(frame, first), correlation(frame, last)
        explained.append((a**2 + b**2 - 2 * a * b * ends) / np.maximum(1 - ends**2, 0.05))
    return np.clip(np.mean(explained, axis=0), 0.0, 1.0)


def _is_everywhere(thumbs: np.ndarray, first: int, last: int) -> bool:
    """Say whether the whole picture changes, and is half changed in the middle; what moves changes place by place."""
    change = thumbs[last] - thumbs[first]
    # participation ratio: 1 where all pixels change alike, 1 / n where one of n does
    spread = np.square(np.mean(change**2)) / max(float(np.mean(change**4)), 1e-3)
    changed = np.abs(change) > _MIN_CHANGED_LEVELS
    share = (thumbs[(first + last) // 2] - thumbs[first])[changed] / change[changed]
    between = np.count_nonzero((share > 0.15) & (share < 0.85)) / len(change)
    return bool(spread >= _MIN_SPREAD and between >= _MIN_BETWEEN)


def _moved(thumbs: np.ndarray, first: int, last: int) -> float:
    """Return the share of what changes that is at its first or last value on the way: it changes all at once."""
    change = thumbs[last] - thumbs[first]
    changed = np.abs(change) > _MIN_CHANGED_LEVELS
    places = [first + (last - first) * part // 4 for part in (1, 2, 3)]
    shares = (thumbs[places][:, changed] - thumbs[first][changed]) / change[changed]
    return 1 - float(np.mean((shares > 0.15) & (shares < 0.85)))


def _ramp(thumbs: np.ndarray, first: int, last: int, fps: float) -> Span | None:
    """Return the frames over which the share of B rises in a straight line from 0 to 1; none if it does not."""
    change = thumbs[last] - thumbs[first]
    margin = max(round(_MARGIN * fps), (last - first) // 4)
    begin, end = max(0, first - margin), min(len(thumbs), last + margin + 1)
    shares = (thumbs[begin:end] - thumbs[first]) @ change / (change @ change)
    middle = (first + last) // 2
    every = max(1, (middle - first + margin // 2) // _RAMP_STEPS)
    starts = np.arange(max(begin, first - margin // 2), middle + 1, every)
    stops = np.arange(middle, min(end, last + margin // 2 + 1), every)
    start, stop = (grid.ravel() for grid in np.meshgrid(starts, stops, indexing="ij"))
    is_ramp = stop - start >= _MIN_RAMP
    start, stop = start[is_ramp], stop[is_ramp]
    ramps = np.clip((np.arange(begin, end, every) - start[:, None]) / (stop - start)[:, None], 0, 1)
    errors = np.sqrt(np.mean((shares[::every] - ramps) ** 2, axis=1))
    best = int(np.argmin(errors))
    return Span(int(start[best]) + 1, int(stop[best])) if errors[best] <= _MAX_RAMP_ERROR else None
