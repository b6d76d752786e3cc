"""Metrics of motion: flicker, how far a video moves, whether it is dynamic, and how many of a group stand still."""

import numpy as np

from stiv_model.metrics import motion
from tasks.evaluation.judge import wilson
from tasks.evaluation.metrics import Evaluated, Features, Figure, Metric, NotApplicable, Rows, SetMetric

_FLOW = {"flow": "OpenCV DIS, preset medium, where a channel changes by over 4 levels", "fastest": motion.FASTEST}
RULE = {"rule": "VBench's: of about 8 frames a second a quarter moves by over 6 px at a shorter side of 256"}


def moves(entry: Evaluated) -> bool:
    """Say whether a video has two frames, between which something can move, large enough for optical flow."""
    return _has_pairs(entry) and min(entry.video.shape[1:3]) >= motion.LEAST_SIDE


def _has_pairs(entry: Evaluated) -> bool:
    return len(entry.video) > 1


def has_rate(entry: Evaluated) -> bool:
    """Say whether a video moves at a rate that is known, and has two of the frames that VBench's rule takes."""
    if entry.fps is None or not entry.fps > 0 or not moves(entry):
        return False
    return len(entry.video) > motion.stride_of(entry.fps)


def _flicker(entry: Evaluated) -> float:
    return entry.seen_by(motion.flicker)


def _motion(entry: Evaluated) -> float:
    return motion.mean_speed(entry.seen_by(motion.speeds), entry.video.shape)


def _dynamics_dis(entry: Evaluated) -> bool:
    assert entry.fps is not None, "it applies to such entries only"
    if motion.stride_of(entry.fps) == 1:
        return motion.moves_enough(entry.seen_by(motion.speeds), entry.video.shape)
    return motion.dynamics_dis(entry.video, entry.fps)


METRICS = (
    Metric(
        *("flicker", "fraction", "higher", _flicker, _has_pairs),
        protocol={"static_filter": False},
        meaning="How little neighbouring frames differ, by VBench's formula without its static filter; 1: not at all.",
    ),
    Metric(
        *("motion", "sides/frame", None, _motion, moves),
        protocol=_FLOW,
        meaning="How far the fastest twentieth of the picture moves each frame, in shorter sides; 0: it is still.",
    ),
    Metric(
        *("dynamics_dis", "share", None, _dynamics_dis, has_rate),
        protocol=_FLOW | RULE,
        meaning="Videos that are dynamic by VBench's rule, with another optical flow: no figure of VBench.",
    ),
)


def _beside_real(entry: Evaluated) -> np.ndarray:
    """Return how far a video moves, whether there is a real one, and how far that moves: 0 where there is none."""
    has_real = entry.truth is not None and len(entry.truth) > 1
    return np.array([_motion(entry), has_real, motion.motion(entry.truth) if has_real else 0.0])  # type: ignore[arg-type]


FEATURES = (Features("motion_beside_real", _beside_real, moves),)


def _still(rows: Rows) -> Figure:
    """Return the share of a group's videos that stand still, against the real clips of all groups.

    Raises:
        NotApplicable: no video has a real one beside it, or these stand still themselves.
    """
    real = rows.everyone[rows.everyone[:, 1] > 0, 2]
    if not len(real):
        raise NotApplicable("no real clips to compare with")
    median = float(np.median(real))
    if not median > 0:
        raise NotApplicable(f"the median motion of the {len(real)} real clips is 0: they stand still themselves")
    found = wilson(sum(motion.is_still(moved, median) for moved in rows.features[:, 0]), len(rows.features))
    of_real = sum(motion.is_still(moved, median) for moved in real) / len(real)
    about = {"real_clips": len(real), "real_median_motion": round(median, 6), "real_still": round(of_real, 6)}
    return Figure(found.share, found.low, found.high, about)


SET_METRICS = (
    SetMetric(
        *("still", "share", "lower", "motion_beside_real", _still),
        meaning="Videos that move by less than a tenth of what real clips do.",
        protocol=_FLOW | {"rule": f"motion under {motion.STILL:g} of the real clips' median"},
    ),
)
