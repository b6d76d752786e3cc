"""Settings of the stage dsg. Values live in params.yaml, types here."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from stiv_model.settings import Settings
from tasks.chat.settings import EndpointSettings, PromptedSettings, PromptFile

Share = Annotated[float, Field(ge=0, le=1)]


class EndpointJudgeSettings(Settings):
    """Models that judge any captions: one writes the questions, one looks at the stills and answers them."""

    backend: Literal["endpoint"]
    """Where the models run: behind servers of Chat Completions."""
    questions: PromptedSettings
    """A language model: of a caption it makes questions, each with a kind and the questions that it depends on, as one
    JSON object (response_format); anything else is malformed. {caption} in its prompt becomes the numbered
    sentences."""
    answers: PromptedSettings
    """A model that sees pictures: of one still, or all in order, and one question, it says yes or no, and anything else
    is unclear. {question} and {frames} in its prompt become the question and the number of stills."""
    frames: PositiveInt
    """Stills of a clip that are asked about, evenly spread; all of a clip that has fewer. `shots.stills` has as many
    or more."""


class DsgSettings(Settings):
    judge: Literal["shapes"] | EndpointJudgeSettings
    """Who makes the questions and answers them. shapes: rules over words and `shapes.judge`, which know the embedded
    corpus and nothing else; or models, by their own keys (docs/dsg.md). Decoys show where a judge is not fit, and there
    is no figure then."""
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
    repair: Literal["none", "drop", "rewrite"]
    """drop: sentences that name an invented object are taken out of the captions; rewrite: the model that wrote the
    caption is asked once more, by rewrite_prompt, for one without these objects, which is judged again, and loses the
    sentences in which it still invents. Of captions that no model behind an endpoint wrote, or where it has no good
    answer, rewrite is drop. The row says which it was."""
    rewrite_prompt: PromptFile
    """File with the prompt for repair: rewrite. {caption}, {objects} and {frames} in it become the caption, what it
    invents, and how many stills the model sees."""
    shard_captions: PositiveInt
    """Captions judged together, as one shard of work; with until: decided, those of a captioner are one shard."""

    @property
    def endpoints(self) -> tuple[EndpointSettings, ...]:
        """Where models are asked."""
        return () if self.judge == "shapes" else (self.judge.questions.endpoint, self.judge.answers.endpoint)

    @model_validator(mode="after")
    def _repairs_all_or_none(self) -> Self:
        if self.repair != "none" and (self.captions is not None or self.until == "decided"):
            raise ValueError(
                f"dsg.repair is {self.repair}, but dsg.captions is {self.captions} and dsg.until {self.until}: only "
                "captions that are judged can be mended, so set captions: null and until: all"
            )
        return self
