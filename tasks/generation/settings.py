"""Settings of the stage samples. Values live in params.yaml, types here."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from stiv_model.settings import Precision, Settings


class SampleSettings(Settings):
    """The videos that are generated to be looked at and judged."""

    text_prompts: PositiveInt
    """Videos made from text alone, of combinations of colour, shape and direction that are held out from training."""
    image_prompts: PositiveInt
    """Videos made from a text and its first frame, also of held-out combinations."""
    interpolated: NonNegativeInt
    """Videos made from every second frame of a scene of a held-out combination, by temporal upsampling (TUP)."""
    predicted: NonNegativeInt
    """Videos made from the first four frames of a scene of a held-out combination, by recipe tasks."""
    between: NonNegativeInt
    """Videos made from the first and the last frame of such scenes, by recipe tasks."""
    long: NonNegativeInt
    """Videos longer than those of the corpus, of such scenes played forwards and backwards, made from a text for each
    key frame and the first frame, by recipe tasks."""
    long_windows: Annotated[int, Field(ge=2)]
    """Windows of each of these, between neighbouring key frames."""
    long_between_prompt: str | None
    """Text for the frames between key frames of longer videos, empty for none; null: that of the key frame after them.
    Where a prompt asks for what the corpus has not, such as to turn back, it pulls at these frames, and the video jumps
    beside a key frame."""
    cascaded: NonNegativeInt
    """Videos made by temporal upsampling (TUP) from every second frame of what the model itself made from text and a
    first frame: the first of those."""
    seen_text_prompts: NonNegativeInt
    """More videos made from text alone, of new scenes whose combinations training saw: what was not learnt is wrong
    here too, what only did not generalise is right here."""
    seen_image_prompts: NonNegativeInt
    """More videos made from a text and its first frame, also of combinations that training saw."""
    given_guidance_scale: Annotated[float, Field(ge=1)]
    """Guidance scale of what is made from several given frames, instead of the sampler's; 1 is none. Frames say what to
    show, and guidance by text takes the made ones away from them."""
    given_steps: PositiveInt
    """Sampling steps of what is made from several given frames, instead of the sampler's: few come out nearer to the
    mean of what may lie between, many sharper."""
    batch: PositiveInt
    """Videos made at the same time."""
    fps: PositiveInt
    """Frames per second of the files that are written."""
    precision: Precision
    """Precision of the model's weights and activations while it makes videos, here and in `stiv sample`."""
    seed: int
    """Seed of the starting noise: the same seed makes the same videos."""
    views_guidance_scale: Annotated[float, Field(ge=1)]
    """Guidance scale of the views that a checkpoint makes of an object, in stage views_table and `stiv views`; 1 is
    none. The paper's 3.5 makes the guesses of a small model louder."""
    views_steps: PositiveInt
    """Sampling steps of these, instead of the sampler's."""

    @model_validator(mode="after")
    def cascade_has_its_frames(self) -> Self:
        """Refuse to make more of the model's own videos than it makes."""
        if self.cascaded > self.image_prompts:
            raise ValueError(
                f"samples.cascaded is {self.cascaded}, but samples.image_prompts is {self.image_prompts}, of whose "
                "videos they are made: set the former to that or less"
            )
        return self
