"""Real shots spoilt step by step, for benchmarks/gate.py: from what nobody would reject to what everybody would."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.stability_shots import Shot, written

Frames = list[np.ndarray]  # BGR, uint8 (height, width, 3)

COMPRESSED = "compressed"
"""The fault that is none of the frames, but of how they are encoded: by x264, its step being the crf."""


class Fault(NamedTuple):
    """What is done to the frames of a shot, in steps."""

    score: str
    """The score that should see it."""
    steps: tuple[float, ...]
    """How strong, the weakest first."""
    spoil: Callable[[Frames, float], Frames]
    unit: str


def _each(change: Callable[[np.ndarray, float], np.ndarray]) -> Callable[[Frames, float], Frames]:
    return lambda frames, step: [change(frame, step) for frame in frames]


def _blurred(frame: np.ndarray, step: float) -> np.ndarray:
    return cv2.GaussianBlur(frame, (0, 0), step / 100 * frame.shape[1])


def _fogged(frame: np.ndarray, step: float) -> np.ndarray:
    return cv2.convertScaleAbs(frame, alpha=step, beta=128 * (1 - step))


def _lit(frame: np.ndarray, step: float) -> np.ndarray:
    return cv2.convertScaleAbs(frame, alpha=step)


def _barred(frame: np.ndarray, step: float) -> np.ndarray:
    out, bar = frame.copy(), round(frame.shape[1] * step / 2)
    out[:, :bar] = out[:, frame.shape[1] - bar :] = 0
    return out


def _noisy(frames: Frames, step: float) -> Frames:
    random = np.random.default_rng(0)
    return [np.clip(frame + random.normal(0, step, frame.shape), 0, 255).astype(np.uint8) for frame in frames]


def _lit_by_turns(frames: Frames, step: float) -> Frames:
    return [cv2.convertScaleAbs(frame, alpha=1 - step * (index % 2)) for index, frame in enumerate(frames)]


def _held(frames: Frames, step: float) -> Frames:
    return [frames[index - index % int(step)] for index in range(len(frames))]


def _shuffled(frames: Frames, step: float) -> Frames:
    """Change the order of the frames within groups of `step`."""
    random, order = np.random.default_rng(0), np.arange(len(frames))
    for first in range(0, len(frames), int(step)):
        random.shuffle(order[first : first + int(step)])
    return [frames[index] for index in order]


def _written(frames: Frames, step: float) -> Frames:
    return [written(frame, 3 if step > 0.05 else 1, step) for frame in frames]


FAULTS: dict[str, Fault] = {
    "frames left out": Fault("temporal_consistency", (2, 3, 4), lambda frames, step: frames[:: int(step)], "one in"),
    "frames out of order": Fault("temporal_consistency", (4, 12, 48), _shuffled, "within"),
    "noise": Fault("temporal_consistency", (10, 20, 40, 80), _noisy, "levels"),
    "blurred": Fault("clarity", (0.2, 0.4, 0.8, 1.6), _each(_blurred), "% of the width"),
    "fogged": Fault("aesthetic", (0.5, 0.25, 0.12, 0.06), _each(_fogged), "of the contrast"),
    "darkened": Fault("brightness", (0.4, 0.2, 0.1, 0.05), _each(_lit), "of the light"),
    "overexposed": Fault("brightness", (1.5, 2.5, 4, 8), _each(_lit), "times the light"),
    "lamp": Fault("flicker", (0.05, 0.1, 0.2, 0.4), _lit_by_turns, "of the light, every second frame"),
    "frames held": Fault("frozen", (2, 3, 5, 12), _held, "times"),
    "pillars": Fault("black_bars", (0.12, 0.25, 0.44, 0.68), _each(_barred), "of the width"),
    "text": Fault("text_area", (0.05, 0.07, 0.1, 0.14), _written, "of the height per line"),
    COMPRESSED: Fault("quality", (34, 43, 51), lambda frames, step: frames, "crf"),
}


def spoilt(shot: Shot, name: str, step: float) -> Shot:
    """Return the shot with one of FAULTS in it."""
    fault = FAULTS[name]
    return Shot(f"{shot.name}, {name} {step:g} {fault.unit}", fault.spoil(shot.frames, step))
