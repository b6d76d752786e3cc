"""Settings of the stage clips. Values live in params.yaml, types here."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, create_model, model_validator

from stiv_model.settings import Fraction, Settings
from tasks.storage import scores


class Range(Settings):
    """Smallest and largest value kept; null is no limit."""

    min: float | None
    max: float | None

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing would be kept")
        return self


class NonNegativeRange(Range):
    """A range of a score that is never negative."""

    min: NonNegativeFloat | None
    max: NonNegativeFloat | None


def _threshold(score: scores.Score) -> Any:
    kind = Range if score.least is None else NonNegativeRange
    return kind | None if score.may_lack else kind


def _meaning(score: scores.Score) -> str:
    return score.meaning + (" Null is not judged." if score.may_lack else "")


if TYPE_CHECKING:  # which cannot follow names that come from rows
    ScoreRanges = Settings
    BestBy = str
else:
    ScoreRanges = create_model(
        "ScoreRanges",
        __base__=Settings,
        __module__=__name__,
        **{one.name: (_threshold(one), Field(description=_meaning(one))) for one in scores.judged()},
    )
    # more motion is no better, but a selection may want it
    BestBy = Literal[(*(one.name for one in scores.judged() if one.better == "higher" or one.name == "motion"),)]


class BestSettings(Settings):
    """A selection of fixed size: of the clips within all thresholds, those with the highest score."""

    clips: PositiveInt
    """How many are kept."""
    by: BestBy
    """The score of which the highest are kept."""


class ClipSettings(ScoreRanges):
    """Thresholds on the scores, near-duplicates, and what the gate demands of the table of clips.

    The ranges of the scores come first, one for each that has a place in the order of judgement
    (tasks/storage/scores.py).
    """

    height: NonNegativeRange
    width: NonNegativeRange
    seconds: NonNegativeRange
    orientations: Annotated[list[Literal["landscape", "portrait", "square"]], Field(min_length=1)]
    """Which are kept; sides that differ by 5 % at most are a square."""
    duplicate_bits: Annotated[int, Field(ge=0, le=64)] | None
    """Clips whose video hashes differ in at most so many of 256 bits are one; null looks for none."""
    duplicate_similarity: Annotated[float, Field(gt=0, le=1)] | None
    """Clips whose embeddings (scores.embedding) have at least this cosine are one too; null looks for none."""
    best: BestSettings | None
    """Null keeps all clips."""
    earlier_releases: list[str]
    """Tables of clips (clips.parquet) that were released before, the last one last: none of theirs comes again."""
    gate_min_clips: PositiveInt
    gate_min_kept_fraction: Fraction
    """The gate fails when a smaller share of the shots is kept."""
    gate_min_hours: NonNegativeFloat
    """The gate fails below so many hours of clips."""
    gate_max_rejected: dict[str, Fraction]
    """By reason, the largest share of the shots judged that may be rejected, or have failed, for it."""
    gate_max_drift: Fraction | None
    """Largest Kolmogorov-Smirnov distance of any score's distribution from the last earlier release's."""

    @model_validator(mode="after")
    def reasons_exist(self) -> Self:
        ranges = [name for name, value in self if isinstance(value, Range)]
        reasons = {f"{name}_{side}" for name in ranges for side in ("below_min", "above_max")}
        reasons |= {"score_missing", "orientation_not_wanted", "near_duplicate", "not_among_best"}
        if unknown := sorted(self.gate_max_rejected.keys() - reasons):
            raise ValueError(f"gate_max_rejected names {unknown}, for which no shot is rejected")
        return self
