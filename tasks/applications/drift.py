"""How far a long video drifts from what it was asked for, window by window, and whether it jumps where windows meet."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tasks.demo.shapes import judge, said
from tasks.evaluation.judge import Share, wilson


class Seams(NamedTuple):
    """Differences between neighbouring frames, in levels (of 255), the mean over a picture."""

    at: float
    """Largest where one of the two is a key frame at which two windows meet."""
    inside: float
    """Largest of all others."""

    @property
    def ratio(self) -> float:
        """Above 1: the video jumps more at seams than inside windows."""
        return self.at / self.inside


class Drift(NamedTuple):
    """How many videos are still what they were asked for, in one window."""

    window: int
    """From 1."""
    colour: Share
    shape: Share


def seams(video: np.ndarray, window: int) -> Seams:
    """Return how much neighbouring frames differ at seams and inside windows.

    Args:
        video: uint8 RGB (T, H, W, 3), of two windows at least.
        window: frames of a window, 4 at least, both its key frames among them.

    Raises:
        ValueError: there is no seam, or nothing beside seams.
    """
    if window < 4 or len(video) < window + 1:
        raise ValueError(f"{len(video)} frames in windows of {window} have no seam, or nothing beside seams")
    apart = np.array([np.abs(after.astype(int) - one).mean() for one, after in pairwise(video)])
    ends = np.arange(len(apart) + 1)
    is_seam = (ends % (window - 1) == 0) & (ends > 0) & (ends < len(apart))
    touches = is_seam[:-1] | is_seam[1:]
    return Seams(float(apart[touches].max()), float(apart[~touches].max()))


def drift(videos: Sequence[np.ndarray], prompts: Sequence[str], window: int) -> list[Drift]:
    """Return for each window in how many videos the judge sees colour and shape as their prompts ask.

    Args:
        videos: uint8 RGB (T, H, W, 3), all of one length.
        prompts: what each shows, as captions of the embedded corpus `shapes` say it.
        window: frames of a window, both its key frames among them.

    Raises:
        ValueError: there is no video, or a prompt that says no colour and shape.
    """
    asked = [said(prompt) for prompt in prompts]
    for prompt, one in zip(prompts, asked, strict=True):
        if one is None:
            raise ValueError(f'"{prompt}" says no colour, shape and direction of one object')
    found = []
    for number, first in enumerate(range(0, len(videos[0]) - 1, window - 1), 1):
        seen = [judge(video[first : first + window]) for video in videos]
        pairs = [(one, wanted) for one, wanted in zip(seen, asked, strict=True) if wanted is not None]
        right = [
            sum(getattr(one, each) == getattr(wanted, each) for one, wanted in pairs) for each in ("colour", "shape")
        ]
        found.append(Drift(number, *(wilson(count, len(videos)) for count in right)))
    return found
