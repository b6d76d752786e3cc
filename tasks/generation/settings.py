"""Settings of the stage samples. Values live in params.yaml, types here."""

from pydantic import PositiveInt

from stiv_model.settings import Precision, Settings


class SampleSettings(Settings):
    """The videos that are generated to be looked at and judged."""

    text_prompts: PositiveInt
    """Videos made from text alone, of prompts about shapes that training never saw."""
    image_prompts: PositiveInt
    """Videos made from a text and its first frame, also of prompts that training never saw."""
    batch: PositiveInt
    """Videos made at the same time."""
    fps: PositiveInt
    """Frames per second of the files that are written."""
    precision: Precision
    """Precision of the model's weights and activations while it makes videos, here and in `stiv sample`."""
    seed: int
    """Seed of the starting noise: the same seed makes the same videos."""
