"""How much a video moves, and how its frames flicker: pure functions of uint8 RGB frames.

Optical flow is DIS of OpenCV, or a network's (`flow.py`): an `Estimator` either way. What VBench measures too is named
apart from it where the figure is not VBench's own: `dynamics_dis` approximates its dynamic degree and is none.

Shapes: T frames, H height, W width in pixels, C = 3 channels.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

Estimator = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From one frame, uint8 RGB (H, W, 3), and the next to the motion of every pixel, float32 (H, W, 2): pixels."""

FASTEST = 0.05
"""Share of the pixels, the fastest ones, whose mean speed is a pair's: VBench's `dynamic_degree.py`."""
_VBENCH_FPS = 8  # VBench takes every n-th frame so that about as many are left of a second
_VBENCH_PIXELS = 6.0  # a pair moves by more, at a shorter side of ...
_VBENCH_SIDE = 256  # ... so many pixels
_VBENCH_PAIRS = 4 / 16  # share of the frames taken: so many pairs must move
STILL = 0.1
"""A video that moves by less than this share of the real clips' median stands still."""
_SEEN_LEVELS = 4.0  # by less, in the mean over a patch, a channel changes by noise and coding only
_PATCH = (5, 5)  # pixels over which noise averages out
_NEAR = np.ones((9, 9), np.uint8)  # pixels: the patches of DIS are 8 wide, so what moves is known as near as that
LEAST_SIDE = 16
"""Pixels of the shorter side that optical flow needs: the patches of DIS are 8 wide, at half the size."""
_NONE: Any = None  # where OpenCV's stubs demand an array that may be left out


def flicker(video_THWC: np.ndarray) -> float:
    """Return how little neighbouring frames differ: 1 for equal ones, 0 from black to white.

    VBench's temporal flickering (arXiv 2311.17982, `temporal_flickering.py`): (255 - mae) / 255, with the mean absolute
    difference of neighbouring frames. Without VBench's static filter, which keeps still videos only: what moves
    counts as flicker here, so that the figure compares with that of real clips, not with a leaderboard's.

    Raises:
        ValueError: there are fewer than two frames.
    """
    _check(video_THWC)
    differences = [float(cv2.absdiff(before, after).mean()) for before, after in pairwise(video_THWC)]
    return (255 - float(np.mean(differences))) / 255


def dis(before_HWC: np.ndarray, after_HWC: np.ndarray) -> np.ndarray:
    """Return the motion of every pixel by dense inverse search (Kroeger et al., arXiv 1603.03590): an `Estimator`.

    OpenCV's preset `MEDIUM`, on the colour channel that changes most: a red shape may be as light as the grey behind
    it. Where nothing around changes by more than noise, there is no motion: there DIS guesses, on flat ground by
    whole pixels (of still clips through H.264, 0.4 of what real ones move). Cost 1.7 ms at 64 x 64, on one core.
    """
    # made anew for each pair: one that has seen a very small picture keeps to coarser scales
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    change = np.abs(cv2.blur(cv2.subtract(after_HWC, before_HWC, dtype=cv2.CV_32F), _PATCH))
    channel = int(change.mean(axis=(0, 1)).argmax())
    first, second = (np.ascontiguousarray(frame[..., channel]) for frame in (before_HWC, after_HWC))
    seen = cv2.dilate((change[..., channel] > _SEEN_LEVELS).astype(np.uint8), _NEAR)
    return estimator.calc(first, second, _NONE) * seen[..., None]


def speeds(video_THWC: np.ndarray, estimate: Estimator = dis) -> np.ndarray:
    """Return how fast each frame moves to the next, float (T - 1,): pixels, the mean of the fastest twentieth.

    Raises:
        ValueError: there are fewer than two frames, or they are too small.
    """
    _check(video_THWC)
    if min(video_THWC.shape[1:3]) < LEAST_SIDE:
        height, width = video_THWC.shape[1:3]
        raise ValueError(f"a video of {width} x {height} pixels: motion needs {LEAST_SIDE} at least of either side")
    return np.array([_fastest(estimate(before, after)) for before, after in pairwise(video_THWC)])


def motion(video_THWC: np.ndarray, estimate: Estimator = dis) -> float:
    """Return the mean speed over the pairs of frames, as a share of the shorter side per frame.

    Raises:
        ValueError: there are fewer than two frames.
    """
    return mean_speed(speeds(video_THWC, estimate), video_THWC.shape)


def mean_speed(of_pairs: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return `motion` from the `speeds` (T - 1,) of a video of shape (T, H, W, 3)."""
    return float(of_pairs.mean()) / min(shape[1:3])


def is_still(moved: float, real_median: float) -> bool:
    """Say whether a video's `motion` is under a tenth of the median of real clips.

    Raises:
        ValueError: that median is not above 0: the real clips stand still themselves, and nothing is to be told.
    """
    if not real_median > 0:
        raise ValueError(
            f"the median motion of the real clips is {real_median:g}: they stand still themselves; name ones that move"
        )
    return moved < STILL * real_median


def is_dynamic(video_THWC: np.ndarray, fps: float, estimate: Estimator = dis) -> bool:
    """Say whether a video is dynamic, by the rule of VBench's dynamic degree with another estimator of flow.

    Of about 8 frames a second a quarter or more, rounded, must move to the next by over 6 pixels at a shorter side of
    256 (`dynamic_degree.py` at 4692f32; VBench's flow is that of RAFT-things). An approximation, to be named by its
    estimator (`dynamics_dis`), never as dynamic degree. One pair at least must move, where VBench's rounding asks for
    none of two frames and finds each such video dynamic.

    Args:
        fps: frames per second of the video.

    Raises:
        ValueError: there are fewer than two frames among those taken, or fps is not above 0.
    """
    taken = video_THWC[:: stride_of(fps)]
    return moves_enough(speeds(taken, estimate), taken.shape)


def stride_of(fps: float) -> int:
    """Return which frames of a video VBench's dynamic degree takes: every n-th, about 8 a second.

    Raises:
        ValueError: fps is not above 0.
    """
    if not fps > 0:
        raise ValueError(f"fps is {fps:g}: the frames per second of a video are above 0")
    return max(1, round(fps / _VBENCH_FPS))


def moves_enough(of_pairs: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Return `is_dynamic` from the `speeds` (T - 1,) of frames of shape (T, H, W, 3) that are `stride_of` apart."""
    limit = _VBENCH_PIXELS * min(shape[1:3]) / _VBENCH_SIDE
    return int((of_pairs > limit).sum()) >= max(1, round(_VBENCH_PAIRS * shape[0]))


def dynamics_dis(video_THWC: np.ndarray, fps: float) -> bool:
    """Say whether a video is dynamic (`is_dynamic`) by the optical flow of DIS: approximates VBench's dynamic degree.

    Raises:
        ValueError: as `is_dynamic`.
    """
    return is_dynamic(video_THWC, fps, dis)


def _fastest(vectors: np.ndarray) -> float:
    length = np.hypot(vectors[..., 0], vectors[..., 1]).ravel()
    number = max(1, int(FASTEST * length.size))
    return float(np.partition(length, -number)[-number:].mean(dtype=np.float64))


def _check(video_THWC: np.ndarray) -> None:
    if video_THWC.ndim != 4 or video_THWC.shape[-1] != 3 or video_THWC.dtype != np.uint8:
        raise ValueError(f"a video is uint8 RGB (T, H, W, 3), not {video_THWC.dtype} {video_THWC.shape}")
    if len(video_THWC) < 2:
        raise ValueError(f"{len(video_THWC)} frame of a video: motion needs 2 at least")
