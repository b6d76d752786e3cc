"""Every score that has a number: what it can be, what it is of, and who measures it.

From these rows follow columns of the tables (tasks/storage/tables.py), what the gate holds for possible
(tasks/clips/expectations.py), and the sentences of the reference (tasks/pages/columns.py). They stand in the order of
the columns.
"""

from typing import Literal, NamedTuple


class Score(NamedTuple):
    """One score of a shot."""

    name: str
    """Its column, and its key under `clips:` where it has thresholds."""
    stage: Literal["shots", "scores"]
    """In which it is measured: the decoding pass, or from the stills."""
    least: float | None
    """Smallest value that it can have; None is no limit."""
    most: float | None
    better: Literal["higher", "lower", "neither"]
    made_by: str
    """Function, or module, that computes it."""
    meaning: str
    """One sentence, with the unit."""


_MEASURES, _MOTION = "tasks.decoding.measures", "tasks.decoding.motion"
_DIAGONAL = "per cent of its diagonal per frame"

SCORES = (
    Score("motion", "shots", 0, None, "neither", _MOTION,
          f"How fast the fastest twentieth of the picture moves, {_DIAGONAL}."),
    Score("camera_motion", "shots", 0, None, "neither", _MOTION,
          f"How far shift, turn and zoom of the camera move the picture, {_DIAGONAL}."),
    Score("object_motion", "shots", 0, None, "neither", _MOTION,
          "As motion, of what moves beyond the camera's motion."),
    Score("motion_x", "shots", None, None, "neither", _MOTION,
          "Mean motion to the right, per cent of the width per frame; negative is left."),
    Score("motion_y", "shots", None, None, "neither", _MOTION,
          "Mean motion down, per cent of the height per frame; negative is up."),
    Score("clarity", "shots", 0, None, "higher", _MEASURES, "0 blurred, or nothing to see, to 1 sharp."),
    Score("temporal_consistency", "shots", 0, 1, "higher", _MEASURES,
          "0 to 1: how well the frame before, moved, explains the next."),
    Score("flicker", "shots", 0, None, "lower", _MEASURES,
          "0 steady to 1: mean change of brightness back and forth."),
    Score("frozen", "shots", 0, 1, "lower", _MEASURES, "0 to 1: share of the frames that repeat the one before."),
    Score("brightness", "shots", 0, 1, "neither", _MEASURES, "0 black to 1 white."),
    Score("saturation", "shots", 0, 1, "neither", _MEASURES, "0 grey to 1."),
    Score("black_bars", "shots", 0, 1, "lower", "tasks.decoding.bars",
          "0 to 1: share of the picture that is letterbox or pillarbox."),
    Score("aesthetic", "scores", 0, 10, "higher", "tasks.scores.aesthetic",
          "0 to 10, by an estimate or by a learnt head on CLIP."),
    Score("text_area", "scores", 0, 1, "lower", "tasks.scores.text_area",
          "0 to 1: share of the picture in lines of text."),
    Score("quality", "scores", 0, 1, "higher", "tasks.scores.quality",
          "0 ruined to 1: freedom from blur, noise, block edges and bad exposure, multiplied."),
    Score("nsfw", "scores", 0, 1, "lower", "tasks.scores.nsfw",
          "0 to 1, the worst still; null without a classifier (`scores.nsfw`)."),
)  # fmt: skip


def measured_in(stage: str) -> list[str]:
    """Return the names of the scores that a stage measures, in the order of the columns."""
    return [score.name for score in SCORES if score.stage == stage]
