"""Every score that has a number: what it can be, what it is of, and where it is computed.

From these rows follow columns of the tables (tasks/storage/tables.py), what a video process may answer
(tasks/sandbox/answer_schemas.py), thresholds and their order (tasks/clips/settings.py), what the gate holds for
possible (tasks/clips/expectations.py), what stage scores computes from a still (tasks/scores/stage.py), units of the
report (tasks/pages/report.py), help of the browse page, sentences of the reference (tasks/pages/columns.py) and the
table in docs/scores.md. They stand in the order of the columns. docs/scores.md has the steps to add one.
"""

from typing import Literal, NamedTuple


class Score(NamedTuple):
    """One score of a shot."""

    name: str
    """Its column, and its key under `clips:` where it has a threshold."""
    stage: Literal["shots", "scores"]
    """In which it is measured: the decoding pass, or from the stills."""
    least: float | None
    """Smallest value that it can have; None is no limit."""
    most: float | None
    unit: str
    """As it stands behind a number or a title."""
    better: Literal["higher", "lower", "neither"]
    of: Literal["pairs", "frames", "still", "stills"]
    """Pairs of frames, or all frames, of the decoding pass; each still by itself, of which the mean counts, so that
    `made_by` has a function of the score's name that takes one (BGR, uint8); or the stills together, by a maker."""
    needs: str
    """What has to be there beyond the default installation; empty is nothing."""
    judged: int | None
    """Its place in the order in which a shot meets the thresholds; None has no threshold."""
    made_by: str
    """Module that computes it."""
    meaning: str
    """One sentence, with the unit."""
    may_lack: bool = False
    """It is null where what it needs is not there, and its threshold may be null then."""


_MEASURES, _MOTION = "tasks.decoding.measures", "tasks.decoding.motion"
_DIAGONAL = "per cent of its diagonal per frame"

SCORES = (
    Score("motion", "shots", 0, None, _DIAGONAL, "neither", "pairs", "", 1, _MOTION,
          f"How fast the fastest twentieth of the picture moves, {_DIAGONAL}."),
    Score("camera_motion", "shots", 0, None, _DIAGONAL, "neither", "pairs", "", 2, _MOTION,
          f"How far shift, turn and zoom of the camera move the picture, {_DIAGONAL}."),
    Score("object_motion", "shots", 0, None, _DIAGONAL, "neither", "pairs", "", 3, _MOTION,
          "As motion, of what moves beyond the camera's motion."),
    Score("motion_x", "shots", None, None, "per cent of the width per frame", "neither", "pairs", "", None, _MOTION,
          "Mean motion to the right, per cent of the width per frame; negative is left."),
    Score("motion_y", "shots", None, None, "per cent of the height per frame", "neither", "pairs", "", None, _MOTION,
          "Mean motion down, per cent of the height per frame; negative is up."),
    Score("clarity", "shots", 0, 1, "share", "higher", "pairs", "", 6, _MEASURES,
          "0 blurred, or nothing to see, to 1 sharp."),
    Score("temporal_consistency", "shots", 0, 1, "share", "higher", "pairs", "", 7, _MEASURES,
          "0 to 1: how well the frame before, moved, explains the next."),
    Score("flicker", "shots", 0, 1, "brightness", "lower", "frames", "", 8, _MEASURES,
          "0 steady to 1: mean change of brightness back and forth."),
    Score("frozen", "shots", 0, 1, "share of the frames", "lower", "frames", "", 9, _MEASURES,
          "0 to 1: share of the frames that repeat the one before."),
    Score("brightness", "shots", 0, 1, "share of white", "neither", "frames", "", 11, _MEASURES,
          "0 black to 1 white."),
    Score("saturation", "shots", 0, 1, "share of full colour", "neither", "pairs", "", 12, _MEASURES,
          "0 grey to 1."),
    Score("black_bars", "shots", 0, 1, "share of the picture", "lower", "pairs", "", 10, "tasks.decoding.bars",
          "0 to 1: share of the picture that is letterbox or pillarbox."),
    Score("aesthetic", "scores", 0, 10, "points", "higher", "stills", "a CLIP and a head for `kind: clip_head`", 4,
          "tasks.scores.aesthetic", "0 to 10, by an estimate or by a learnt head on CLIP."),
    Score("text_area", "scores", 0, 1, "share of the picture", "lower", "stills", "", 5, "tasks.scores.text_area",
          "0 to 1: share of the picture in lines of text."),
    Score("quality", "scores", 0, 1, "share", "higher", "still", "", 13, "tasks.scores.quality",
          "0 ruined to 1: freedom from blur, noise, block edges and bad exposure, multiplied."),
    Score("nsfw", "scores", 0, 1, "probability", "lower", "stills", "the extra `nsfw`", 14, "tasks.scores.nsfw",
          "0 to 1, the worst still; null without a classifier (`scores.nsfw`).", may_lack=True),
)  # fmt: skip


def measured_in(stage: str) -> list[str]:
    """Return the names of the scores that a stage measures, in the order of the columns."""
    return [score.name for score in SCORES if score.stage == stage]


def judged() -> list[Score]:
    """Return the scores that have a threshold, in the order in which a shot meets them."""
    return sorted((score for score in SCORES if score.judged is not None), key=lambda score: score.judged or 0)


def range_of(score: Score) -> str:
    """Return what a score can be, as the tables of the documentation have it: "0 to 1", "0 up"."""
    if score.least is None:
        return "any"
    return f"{score.least:g} up" if score.most is None else f"{score.least:g} to {score.most:g}"
