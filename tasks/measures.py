"""What is measured on a shot's small analysis frames while it is decoded: pure functions of pictures.

Pictures are uint8, BGR (height, width, 3) or grey (height, width), about 256 pixels on the longer side. Costs
are per call at 256 x 144 on one core of a small server.
"""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

_FASTEST = 0.05  # share of the pixels taken as the moving part
_NOISE_LEVELS = 8.0  # grey levels of change between frames that count as noise, not as flicker


class Motion(NamedTuple):
    """Movement from one frame to the next, of the fastest twentieth of the pixels.

    The fastest twentieth, because a small thing that moves over a still background hardly shows in the mean
    over the picture; and not the very fastest pixel, which is noise.
    """

    amount: float
    """Mean length of the motion vectors, per cent of the picture's diagonal per frame; 0 is still."""
    x: float
    """Mean horizontal motion, per cent of the width per frame, positive to the right."""
    y: float
    """Mean vertical motion, per cent of the height per frame, positive downwards."""


@lru_cache(maxsize=1)
def _estimator() -> cv2.DISOpticalFlow:
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)


def vectors(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the motion of every pixel from one grey frame to the next, float32 (height, width, 2): pixels.

    Dense inverse search (Kroeger et al., arXiv 1603.03590), OpenCV's fastest preset. Cost 1 ms.
    """
    return _estimator().calc(before, after, None)  # type: ignore[call-overload]  # OpenCV's stub wants an array


def motion(moved_by: np.ndarray) -> Motion:
    """Return how much, and where to, the moving part moves, from `vectors`. Cost 0.5 ms."""
    height, width = moved_by.shape[:2]
    flat = moved_by[::2, ::2].reshape(-1, 2)  # a quarter of the pixels says the same, and sorts four times as fast
    length = np.hypot(flat[:, 0], flat[:, 1])
    count = max(1, int(_FASTEST * length.size))
    fastest = np.argpartition(length, length.size - count)[-count:]
    x, y = flat[fastest].mean(axis=0, dtype=np.float64)
    amount = length[fastest].mean(dtype=np.float64) / np.hypot(height, width)
    return Motion(100 * float(amount), 100 * float(x) / width, 100 * float(y) / height)


def temporal_consistency(before: np.ndarray, after: np.ndarray, moved_by: np.ndarray) -> float:
    """Return 0 to 1: how well one grey frame, moved by the vectors `moved_by`, explains the next.

    One minus the mean absolute difference that is left, relative to the picture's mean deviation from its
    average. Steady footage gives 0.8 and more; flicker, dropped frames and noise bring it down. Cost 0.5 ms.
    """
    height, width = after.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = cv2.remap(
        before,
        x - moved_by[..., 0],
        y - moved_by[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    left = float(cv2.absdiff(after, moved).mean())
    contrast = float(np.abs(after - after.mean(dtype=np.float64)).mean())
    return 1.0 - min(1.0, left / (contrast + _NOISE_LEVELS))


def clarity(grey: np.ndarray) -> float:
    """Return the standard deviation of a grey picture's Laplacian, 0 (flat) to about 200. Cost 0.1 ms."""
    return float(cv2.Laplacian(grey, cv2.CV_32F).std(dtype=np.float64))


def brightness(picture: np.ndarray) -> float:
    """Return the mean of the colour channels of a BGR picture, 0 black to 1 white. Cost 0.05 ms."""
    return float(picture.mean(dtype=np.float64)) / 255


def saturation(picture: np.ndarray) -> float:
    """Return the mean saturation (HSV) of a BGR picture, 0 grey to 1 pure colour. Cost 0.1 ms."""
    return float(cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)[..., 1].mean(dtype=np.float64)) / 255


def jpeg(picture: np.ndarray) -> bytes:
    """Return a BGR picture as JPEG of quality 90."""
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done, f"OpenCV could not encode a picture of shape {picture.shape}"
    return data.tobytes()
