"""Settings of the stage samples. Values live in params.yaml, types here."""

from pydantic import PositiveInt

from stiv_model.settings import Settings


class SampleSettings(Settings):
    """The videos that are generated to be looked at and judged."""

    text_prompts: PositiveInt
    """Held-out `shapes` prompts, text to video."""
    image_prompts: PositiveInt
    """Held-out `shapes` prompts given with their first frame, text and image to video."""
    batch: PositiveInt
    """Videos made at once."""
    fps: PositiveInt
    """Frames per second of the files that are written."""
    seed: int
    """Of the starting noise."""
