"""What is measured on the small pictures of the one decoding pass: the cheap scores of a shot.

`glance` looks at every frame, `measure` at one pair of neighbouring frames in a few, `summarise` makes one value per
shot of both. Pictures are about 256 pixels on the longer side whatever the video's size, and lengths are shares of the
picture, so scores compare between resolutions (of videos that are not smaller still); motion is per frame, so
frame rates do show. Costs are CPU time per call at 256 x 144 on one core of a small server.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import cv2
import numpy as np

from tasks.decoding import bars, motion
from tasks.decoding.decode import Picture

_NOISE_LEVELS = 8.0  # grey levels of change between frames that count as noise, not as flicker
_COARSE = 1 / 8  # the size at which change is looked for: what is finer is the encoder's noise
_BLOCKS = (16, 9)  # columns and rows of blocks, any of which may change
_NOTHING_NEW = (2.0, 0.5)  # levels: a frame whose block that changes most does so by as much, or as little ...
_STUTTER = (0.35, 0.2)  # ... or by such a share of the changes on both sides: from not at all to wholly a repetition
_LEAST_CHANGE = 1e-6  # levels
_FLICKER_FRAMES = 6  # brightness that comes back within so many frames flickers
_EDGE_LEVELS = 4.0  # change from pixel to pixel (root mean square) below which a picture has no edges to speak of
_PATCH = 8  # pixels
_DARK_LEVELS = 128  # of the strongest channel: what is darker shows less colour, and encoders take some of that away
_MEANS = ("motion", "camera_motion", "object_motion", "motion_x", "motion_y", "clarity", "temporal_consistency")


class FrameStats(NamedTuple):
    """What is seen of every frame. Cost 0.03 ms."""

    brightness: float
    """Mean of the colour channels, 0 black to 1 white."""
    change: float
    """Levels (0-255) by which the block that changes most does since the frame before, finest detail apart; infinite
    for a video's first."""


class PairStats(NamedTuple):
    """What is measured on a pair of frames; `bars` is of the second."""

    motion: float
    camera_motion: float
    object_motion: float
    motion_x: float
    motion_y: float
    clarity: float
    temporal_consistency: float
    saturation: float
    bars: bars.Profile


def glance(before: Picture | None, after: Picture) -> FrameStats:
    """Look at a frame, and at what changed since the one before."""
    light = brightness(after.bgr)
    if before is None:
        return FrameStats(light, float("inf"))
    change = cv2.subtract(after.luma, before.luma, dtype=cv2.CV_32F)
    small = cv2.resize(change, None, fx=_COARSE, fy=_COARSE, interpolation=cv2.INTER_AREA)
    blocks = cv2.resize(np.abs(small), _BLOCKS, interpolation=cv2.INTER_AREA)
    return FrameStats(light, float(blocks.max()))


def measure(before: Picture, after: Picture, estimate: motion.Estimator = motion.dense) -> PairStats:
    """Measure a frame together with the one before it; both have `grey`. Cost 1.4 ms by `motion.dense`."""
    assert before.grey is not None and after.grey is not None, "asked of a pair whose second frame is_measured"
    found = motion.between(before.grey, after.grey, estimate)
    return PairStats(
        motion=found.amount,
        camera_motion=found.camera,
        object_motion=found.objects,
        motion_x=found.x,
        motion_y=found.y,
        clarity=clarity(after.grey),
        temporal_consistency=temporal_consistency(after.grey, found.moved),
        saturation=saturation(after.bgr),
        bars=bars.profile(after.grey),
    )


def summarise(glances: Sequence[FrameStats], measured: Sequence[PairStats]) -> dict[str, float | None]:
    """Return a shot's value of every cheap score: the columns of tables.SHOTS, null where nothing was measured.

    Args:
        glances: of the shot's frames, in order. The first one's change is over the cut, and is not used.
        measured: of those pairs of frames that lie in the shot with both.
    """
    lights = np.array([entry.brightness for entry in glances])
    return {
        **{name: _mean([getattr(entry, name) for entry in measured]) for name in (*_MEANS, "saturation")},
        "brightness": _mean(lights),
        "flicker": flicker(lights),
        "frozen": frozen([entry.change for entry in glances[1:]]),
        "black_bars": bars.share([entry.bars for entry in measured]),
    }


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values, dtype=np.float64)) if len(values) else None


def temporal_consistency(after: np.ndarray, moved: np.ndarray) -> float:
    """Return 0 to 1: how well the frame before, `moved` by the motion vectors, explains this one.

    One minus the mean absolute difference that is left, relative to the picture's mean deviation from its
    average. Steady footage gives 0.8 and more; flashes, dropped frames and noise bring it down. Cost 0.02 ms.
    """
    left = cv2.norm(after, moved, cv2.NORM_L1) / after.size
    average = np.full_like(after, round(cv2.mean(after)[0]))
    contrast = cv2.norm(after, average, cv2.NORM_L1) / after.size
    return 1.0 - min(1.0, left / (contrast + _NOISE_LEVELS))


def clarity(grey: np.ndarray) -> float:
    """Return 0 (blurred, or nothing to see) to 1: how much of its edges' strength a picture loses to a blur.

    After Crete et al. 2007, "The blur effect": what is blurred already loses little. Being a share it does not grow
    with contrast. At half the size, and in squares, so that clear edges decide: what is faint or finer than two pixels
    may be noise, and goes first when a video is encoded again. Cost 0.03 ms.
    """
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    blurred = cv2.blur(half, (3, 3))
    lost = total = 0.0
    for axis in (0, 1):
        edges, rest = (cv2.absdiff(*_neighbours(one, axis)) for one in (half, blurred))
        lost += cv2.norm(cv2.subtract(edges, rest), cv2.NORM_L2SQR)
        total += cv2.norm(edges, cv2.NORM_L2SQR)
    return float(np.sqrt(lost / (total + _EDGE_LEVELS**2 * half.size)))


def _neighbours(picture: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    return (picture[1:], picture[:-1]) if axis == 0 else (picture[:, 1:], picture[:, :-1])


def brightness(bgr: np.ndarray) -> float:
    """Return the mean of the colour channels of a BGR picture, 0 black to 1 white. Cost 5 us."""
    return cv2.norm(bgr, cv2.NORM_L1) / bgr.size / 255


def saturation(bgr: np.ndarray) -> float:
    """Return the mean saturation of a BGR picture, 0 grey to 1 pure colour. Cost 0.04 ms.

    Of patches of 8 x 8 pixels, the strongest channel less the weakest, as a share of the strongest; of half of the
    brightness where it is darker, so that colour fades with the light.
    """
    size = (max(1, bgr.shape[1] // _PATCH), max(1, bgr.shape[0] // _PATCH))
    channels = cv2.split(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA))
    most, least = (reduce(pick, channels) for pick in (cv2.max, cv2.min))
    return float(np.mean((most - least) / np.maximum(most, _DARK_LEVELS), dtype=np.float64))


def flicker(lights: np.ndarray) -> float | None:
    """Return 0 (steady) to 1 (black and white by turns): mean change of brightness from frame to frame, back and forth.

    What a fade or a camera that pans into the light does is one way, and does not count: of the change in six frames,
    only what is more than the way from the first to the last. Null for fewer than three frames.

    Args:
        lights: (frames,) brightness, 0 to 1.
    """
    if len(lights) < 3:
        return None
    steps = min(_FLICKER_FRAMES, len(lights) - 1)
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(lights)))])
    there_and_back = (way[steps:] - way[:-steps]) - np.abs(lights[steps:] - lights[:-steps])
    return max(0.0, float(there_and_back.mean() / steps))


def frozen(changes: Sequence[float]) -> float | None:
    """Return the share of frames, 0 to 1, that repeat the one before, from their `FrameStats.change`; null for none.

    A frame repeats the one before as far as hardly anything changes, or by far less than up to two frames before and
    after: an encoder does not give a frame that is shown again the very same levels. Between that and a frame that is
    new it counts in part, so that the encoder's noise does not decide.
    """
    if not changes:
        return None
    change = np.array(changes)
    around = np.pad(change, 2)
    before, after = np.maximum(around[:-4], around[1:-3]), np.maximum(around[3:-1], around[4:])
    beside = change / np.maximum(np.minimum(before, after), _LEAST_CHANGE)
    return _mean(np.maximum(motion.share(change, *_NOTHING_NEW), motion.share(beside, *_STUTTER)))


def jpeg(picture: np.ndarray) -> bytes:
    """Return a BGR picture as JPEG of quality 90."""
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done, f"OpenCV could not encode a picture of shape {picture.shape}"
    return data.tobytes()
