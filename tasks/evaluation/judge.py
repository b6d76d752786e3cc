"""What the judge's figures are made of: names, shares with intervals, and how close two pictures are."""

import math
from typing import NamedTuple

import numpy as np

from tasks.dsg import intervals

ATTRIBUTES = ("colour", "shape", "direction")
"""What a prompt says."""
PROPERTIES = ("moved", "one_object", "same_object")
"""What a good video has whatever its prompt says."""
COMBINATIONS = {True: "held_out", False: "seen"}
BEST_PSNR = 100.0  # dB, stands for "identical": infinity has no JSON


class Share(NamedTuple):
    """How many of how many were right, with the 95 % interval of the share."""

    right: int
    share: float
    low: float
    high: float


def wilson(right: int, total: int) -> Share:
    """Return the share `right / total` with its Wilson score interval (Wilson 1927, eq. 5).

    Raises:
        ValueError: nothing was counted, so there is no share.
    """
    if total < 1 or not 0 <= right <= total:
        raise ValueError(f"{right} right of {total}: a share needs 0 <= right <= total and total >= 1")
    low, high = intervals.wilson(np.array(right), np.array(total))
    return Share(right, right / total, float(low), float(high))


def psnr(image: np.ndarray, frame: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB of two uint8 (H, W, 3) pictures, at most `BEST_PSNR`.

    Raises:
        ValueError: they differ in size.
    """
    if image.shape != frame.shape:
        raise ValueError(
            f"the given image is {image.shape} and the generated frame {frame.shape}: make data/samples again"
        )
    error = np.mean((image.astype(np.float64) - frame.astype(np.float64)) ** 2)
    return BEST_PSNR if error == 0 else min(BEST_PSNR, 10 * math.log10(255**2 / error))
