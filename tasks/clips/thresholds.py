"""The thresholds of a selection, in the order in which a shot meets them, and the funnel they make.

One definition for tasks/clips/verdicts.py, which judges a table in DuckDB for stage clips and `stiv funnel`, and for
`stiv why`, which judges one row; a test holds the two to each other.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.clips.settings import ClipSettings, Range
from tasks.storage.scores import judged

SCORE_MISSING, ORIENTATION = "score_missing", "orientation_not_wanted"
NEAR_DUPLICATE, NOT_BEST = "near_duplicate", "not_among_best"

POSSIBLE: dict[str, tuple[float, float | None]] = {
    score.name: (score.least, score.most) for score in judged() if score.least is not None
} | {"height": (1, None), "width": (1, None), "seconds": (0, None)}
"""The smallest and largest value that each judged column can have at all; None is no limit."""


class Limit(NamedTuple):
    """One end of a range. The limit itself is inside."""

    score: str
    is_min: bool
    value: float

    @property
    def reason(self) -> str:
        """The reason code of a shot that misses this limit."""
        return f"{self.score}_{'below_min' if self.is_min else 'above_max'}"

    @property
    def key(self) -> str:
        """Its dotted key in params.yaml."""
        return f"clips.{self.score}.{'min' if self.is_min else 'max'}"

    def is_missed_by(self, value: float) -> bool:
        return value < self.value if self.is_min else value > self.value


class Rules(NamedTuple):
    """What a shot must meet by itself, in the order in which it is judged."""

    scores: tuple[str, ...]
    """Columns that must hold a finite number."""
    duplicate_columns: tuple[str, ...]
    """Columns that must not be null, because near-duplicates are looked for by them; empty where none are."""
    limits: tuple[Limit, ...]
    """Ends of ranges that its scores must lie within, in order."""
    orientations: tuple[str, ...]
    """Orientations of which it must have one."""


class Amount(NamedTuple):
    """How many shots, and how long they are together: in whole microseconds, so that sums depend on no order."""

    clips: int
    microseconds: int


def ranges(settings: ClipSettings) -> dict[str, Range]:
    """Return the scores that have a range, in the order in which they are judged."""
    return {name: value for name, value in settings if isinstance(value, Range)}


def rules(settings: ClipSettings) -> Rules:
    """Return what each shot must meet by itself."""
    own = ranges(settings)
    ends = [(name, is_min, own[name].min if is_min else own[name].max) for name in own for is_min in (True, False)]
    limits = tuple(Limit(name, is_min, value) for name, is_min, value in ends if value is not None)
    return Rules(tuple(own), duplicate_columns(settings), limits, tuple(settings.orientations))


def duplicate_columns(settings: ClipSettings) -> tuple[str, ...]:
    """Return the columns by which near-duplicates are looked for, of the table of scores; none when they are not."""
    by_hash = ("video_hash",) * (settings.duplicate_bits is not None)
    return by_hash + ("embedding", "embedder") * (settings.duplicate_similarity is not None)


def judge_shot(row: dict[str, Any], wanted: Rules) -> tuple[str, str | None]:
    """Return the status of one scored shot by itself, and its reason: that of the first threshold it misses.

    A shot that lacks a score (null, or no finite number) has failed; one that was not ok before stays what it was.
    Reasons are short fixed codes, such as motion_below_min; null with status ok.

    Args:
        row: of schema CLIPS.
    """
    if row["status"] != "ok":
        return row["status"], row["reason"]
    if any(row[name] is None for name in ("orientation", *wanted.duplicate_columns)):
        return "failed", SCORE_MISSING
    if not all(_is_measured(row[score]) for score in wanted.scores):
        return "failed", SCORE_MISSING
    for limit in wanted.limits:
        if limit.is_missed_by(row[limit.score]):
            return "rejected", limit.reason
    if row["orientation"] not in wanted.orientations:
        return "rejected", ORIENTATION
    return "ok", None


def steps(settings: ClipSettings) -> dict[str, tuple[str, ...]]:
    """Return the steps of the funnel in order, with the reasons of the shots that each one loses."""
    found: dict[str, tuple[str, ...]] = {SCORE_MISSING: (SCORE_MISSING,)}
    found |= {name: (f"{name}_below_min", f"{name}_above_max") for name in ranges(settings)}
    found["orientation"] = (ORIENTATION,)
    if duplicate_columns(settings):
        found[NEAR_DUPLICATE] = (NEAR_DUPLICATE,)
    if settings.best is not None:
        found["best"] = (NOT_BEST,)
    return found


def reasons(settings: ClipSettings) -> list[str]:
    """Return every reason for which a selection can lose a shot."""
    return [reason for codes in steps(settings).values() for reason in codes]


def funnel(lost: Mapping[str | None, Amount], settings: ClipSettings) -> list[dict[str, Any]]:
    """Return how many shots and seconds each step left and lost, from all scored to the clips.

    Args:
        lost: the shots by reason; those that become clips have None.
    """
    left, left_time = (sum(amount[part] for amount in lost.values()) for part in (0, 1))
    table = [_step("scored", left, left_time, 0, 0)]
    for name, reasons in steps(settings).items():
        amounts = [lost[reason] for reason in reasons if reason in lost]
        clips, time = sum(one.clips for one in amounts), sum(one.microseconds for one in amounts)
        left, left_time = left - clips, left_time - time
        table.append(_step(name, left, left_time, clips, time))
    return table


def _is_measured(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _step(step: str, clips: int, time: int, lost: int, lost_time: int) -> dict[str, Any]:
    return {"step": step, "clips": clips, "seconds": time / 1e6, "lost": lost, "lost_seconds": lost_time / 1e6}
