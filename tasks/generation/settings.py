"""Settings of the stage samples. Values live in params.yaml, types here."""

from pydantic import NonNegativeInt, PositiveInt

from stiv_model.settings import Precision, Settings


class SampleSettings(Settings):
    """The videos that are generated to be looked at and judged."""

    text_prompts: PositiveInt
    """Videos made from text alone, of combinations of colour, shape and direction that are held out from training."""
    image_prompts: PositiveInt
    """Videos made from a text and its first frame, also of held-out combinations."""
    interpolated: NonNegativeInt
    """Videos made from every second frame of a scene of a held-out combination, by temporal upsampling (TUP)."""
    seen_text_prompts: NonNegativeInt
    """More videos made from text alone, of new scenes whose combinations training saw: what was not learnt is wrong
    here too, what only did not generalise is right here."""
    seen_image_prompts: NonNegativeInt
    """More videos made from a text and its first frame, also of combinations that training saw."""
    batch: PositiveInt
    """Videos made at the same time."""
    fps: PositiveInt
    """Frames per second of the files that are written."""
    precision: Precision
    """Precision of the model's weights and activations while it makes videos, here and in `stiv sample`."""
    seed: int
    """Seed of the starting noise: the same seed makes the same videos."""
