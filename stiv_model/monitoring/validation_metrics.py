"""What is measured of validation videos, by name: `monitoring.validation_metrics` of params.yaml.

Shapes: T frames, H height, W width in pixels, C = 3 channels.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stiv_model.metrics import motion
from stiv_model.settings import ValidationMetric

METRICS: dict[ValidationMetric, Callable[[np.ndarray, float], float]] = {
    "flicker": lambda video_THWC, fps: motion.flicker(video_THWC),
    "motion": lambda video_THWC, fps: motion.motion(video_THWC),
    "dynamics_dis": lambda video_THWC, fps: float(motion.dynamics_dis(video_THWC, fps)),
}
"""Each is computed from uint8 RGB frames (T, H, W, 3) and frames per second."""


def measure(
    videos: Mapping[str, np.ndarray], names: Sequence[ValidationMetric], fps: float
) -> dict[str, dict[str, float]]:
    """Return every figure of every video, by metric and by video; none of a single frame, in which nothing moves.

    Args:
        videos: uint8 RGB frames (T, H, W, 3) by name.
        names: of the metrics.
        fps: frames per second of all videos.
    """
    moving = {name: frames for name, frames in videos.items() if len(frames) > 1}
    return {metric: {name: METRICS[metric](frames, fps) for name, frames in moving.items()} for metric in names}


def means(measured: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the videos of a kind, `prompt` or `clip`, as trackers name it."""
    found = {}
    for metric, values in measured.items():
        kinds = dict.fromkeys(name.partition(" ")[0] for name in values)
        for kind in kinds:
            own = [value for name, value in values.items() if name.partition(" ")[0] == kind]
            found[f"validation/{metric} of {kind}s"] = float(np.mean(own))
    return found
