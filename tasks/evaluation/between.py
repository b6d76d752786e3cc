"""What is made beside or between given frames, against the true video, and against doing without a model.

Frames that are repeated or blended are those of the video itself, so that what the VAE loses is on both sides.
"""

import numpy as np

from tasks.evaluation.judge import psnr
from tasks.evaluation.metrics import Evaluated, Metric


def _has_several(entry: Evaluated) -> bool:
    return entry.truth is not None and 1 < len(entry.given_frames) < len(entry.video)


def made_places(given: tuple[int, ...], frames: int) -> list[int]:
    """Return the made frames that count: those between given ones, or where there is none, those after the last."""
    inside = [place for place in range(given[0], given[-1]) if place not in given]
    return inside or [place for place in range(frames) if place not in given]


def repeated(video: np.ndarray, given: tuple[int, ...]) -> np.ndarray:
    """Return uint8 (T, H, W, 3) where each frame is the last given one before it, or the first."""
    return np.stack(
        [video[max((one for one in given if one <= place), default=given[0])] for place in range(len(video))]
    )


def blended(video: np.ndarray, given: tuple[int, ...]) -> np.ndarray:
    """Return uint8 (T, H, W, 3) where each frame is the mean of its given neighbours, weighted by how near they are.

    Where there is no neighbour on one side, it is the other.
    """
    frames = np.empty_like(video)
    for place in range(len(video)):
        before = max((one for one in given if one <= place), default=given[0])
        after = min((one for one in given if one >= place), default=given[-1])
        share = (place - before) / (after - before) if after > before else 0.0
        frames[place] = np.rint((1 - share) * video[before].astype(float) + share * video[after])
    return frames


def _against_truth(entry: Evaluated, frames: np.ndarray, places: list[int]) -> float:
    assert entry.truth is not None, "it applies to such entries only"
    return float(np.mean([psnr(entry.truth[place], frames[place]) for place in places]))


def _made(entry: Evaluated) -> float:
    return _against_truth(entry, entry.video, made_places(entry.given_frames, len(entry.video)))


def _repeated(entry: Evaluated) -> float:
    frames = repeated(entry.video, entry.given_frames)
    return _against_truth(entry, frames, made_places(entry.given_frames, len(frames)))


def _blended(entry: Evaluated) -> float:
    frames = blended(entry.video, entry.given_frames)
    return _against_truth(entry, frames, made_places(entry.given_frames, len(frames)))


def _given(entry: Evaluated) -> float:
    return _against_truth(entry, entry.video, list(entry.given_frames))


METRICS = (
    Metric(
        *("made_psnr", "dB", "higher", _made, _has_several),
        meaning="How close the frames that were made between given ones, or after them, are to the true video's.",
    ),
    Metric(
        *("repeated_psnr", "dB", None, _repeated, _has_several),
        meaning="How close they would be if the last given frame were repeated.",
    ),
    Metric(
        *("blended_psnr", "dB", None, _blended, _has_several),
        meaning="How close they would be if the given neighbours were blended.",
    ),
    Metric(
        *("given_psnr", "dB", None, _given, _has_several),
        meaning="How close the given frames themselves are, which went through the VAE: nothing made comes nearer.",
    ),
)
