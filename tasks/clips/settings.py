"""Settings of the stage clips. Values live in params.yaml, types here."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, create_model, model_validator

from stiv_model.settings import Fraction, Settings
from tasks.storage import scores


class Range(Settings):
    """Smallest and largest value of a clip; null is no limit."""

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


def _threshold(score: scores.Score) -> tuple[Any, Any]:
    """Return type and description of a score's threshold. Without a key in params.yaml it has no limit."""
    kind = Range if score.least is None else NonNegativeRange
    if score.may_lack:
        return kind | None, Field(default=None, description=f"{score.meaning} A threshold of null does not judge it.")
    return kind, Field(default=kind(min=None, max=None), description=score.meaning)


if TYPE_CHECKING:  # which cannot follow names that come from rows
    ScoreRanges = Settings
    BestBy = str
else:
    ScoreRanges = create_model(
        "ScoreRanges",
        __base__=Settings,
        __module__=__name__,
        **{one.name: _threshold(one) for one in scores.judged()},
    )
    # more motion is no better, but a selection may want it
    BestBy = Literal[(*(one.name for one in scores.judged() if one.better == "higher" or one.name == "motion"),)]


class BestSettings(Settings):
    """A selection of fixed size: of the clips within all thresholds, those with the highest score."""

    clips: PositiveInt
    """How many clips to select."""
    by: BestBy
    """The score by which the highest are selected."""


class ClipSettings(ScoreRanges):
    """Thresholds on the scores, near-duplicates, and what the gate demands of the table of clips.

    The ranges of the scores come first, one for each that has a place in the order of judgement
    (tasks/storage/scores.py); one that params.yaml does not name has no limit.
    """

    height: NonNegativeRange
    """Height of the source video, pixels."""
    width: NonNegativeRange
    """Width of the source video, pixels."""
    seconds: NonNegativeRange
    """Duration of the shot, seconds."""
    orientations: Annotated[list[Literal["landscape", "portrait", "square"]], Field(min_length=1)]
    """Shapes of picture that may become clips; sides that differ by at most 5 % are a square."""
    duplicate_bits: Annotated[int, Field(ge=0, le=64)] | None
    """Near-duplicates are clips whose video hashes differ in at most this many of 256 bits: only the best of them
    stays. Null compares no hashes."""
    duplicate_similarity: Annotated[float, Field(gt=0, le=1)] | None
    """Near-duplicates are also clips whose embeddings (made where `scores.embedding` names an encoder) have at least
    this cosine similarity. Null compares no embeddings."""
    best: BestSettings | None
    """Select only this many clips, those with the highest score. Null selects all that are within the thresholds."""
    earlier_releases: list[str]
    """Tables of clips (clips.parquet) released before, in the order of their release: shots that are near-duplicates of
    a clip in one of them are rejected."""
    gate_min_clips: PositiveInt
    """The gate fails below this many clips."""
    gate_min_kept_fraction: Fraction
    """The gate fails when a smaller share of the shots than this becomes clips."""
    gate_min_hours: NonNegativeFloat
    """The gate fails when all clips together are shorter than this, hours."""
    gate_max_rejected: dict[str, Fraction]
    """For each reason named, the largest share of the shots that may be rejected or have failed for it; above, the gate
    fails."""
    gate_max_drift: Fraction | None
    """The gate fails when the distribution of a score differs from that of the last of `earlier_releases` by more than
    this (Kolmogorov-Smirnov distance). Null allows any."""

    @model_validator(mode="after")
    def reasons_exist(self) -> Self:
        ranges = [name for name, value in self if isinstance(value, Range)]
        reasons = {f"{name}_{side}" for name in ranges for side in ("below_min", "above_max")}
        reasons |= {"score_missing", "orientation_not_wanted", "near_duplicate", "not_among_best"}
        if unknown := sorted(self.gate_max_rejected.keys() - reasons):
            raise ValueError(f"gate_max_rejected names {unknown}, for which no shot is rejected")
        return self
