"""Settings of the stage dsg. Values live in params.yaml, types here."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from stiv_model.settings import Settings

Share = Annotated[float, Field(ge=0, le=1)]


class DsgSettings(Settings):
    judge: Literal["shapes"]
    """Who answers. shapes: `shapes.judge`, which knows the embedded corpus and nothing else; decoys show where it is
    not fit, and there is no figure then."""
    captions: PositiveInt | None
    """Captions of each captioner that are judged, drawn at random; the paper has 100. null: all."""
    seed: NonNegativeInt
    """Of the draw."""
    decoy_fraction: Share
    """Share of these of which decoys are asked: what another clip's caption says, and the answer should be no."""
    decoys: PositiveInt
    """Other captions at most of which they are, each with an object that none before it has."""
    max_false_yes: Share
    """Largest share of decoys that the judge may affirm; a judge that affirms more is not fit."""
    until: Literal["all", "decided"]
    """all: every caption that was drawn is judged; decided: one after the other, until it is decided whether more or
    less than max_invented is invented."""
    max_invented: Annotated[float, Field(gt=0, lt=1)]
    """The gate: the upper end of the 95 % interval of a captioner's share of invented objects, corrected for the
    judge's errors, may not be above."""
    min_objects: NonNegativeFloat
    """The gate: objects that a caption must name in the mean. A caption that says nothing invents nothing."""
    max_undecided: Share
    """The gate: largest share of the objects that are neither present nor invented."""
    without_verdict: Literal["go_on", "stop"]
    """What becomes of the stage where a captioner gets no verdict: the judge is not fit, or too little is known."""
    repair: Literal["none", "drop"]
    """drop: sentences that name an invented object are taken out of the captions; the row says so."""
    shard_captions: PositiveInt
    """Captions judged together, as one shard of work; with until: decided, those of a captioner are one shard."""

    @model_validator(mode="after")
    def _repairs_all_or_none(self) -> Self:
        if self.repair == "drop" and (self.captions is not None or self.until == "decided"):
            raise ValueError(
                f"dsg.repair is drop, but dsg.captions is {self.captions} and dsg.until {self.until}: only captions "
                "that are judged can be mended, so set captions: null and until: all"
            )
        return self
