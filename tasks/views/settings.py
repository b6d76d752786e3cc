"""Settings of the multi-view data. Values live in params.yaml, types here."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from stiv_model.settings import Fraction, Settings

Solid = Literal["cube", "pyramid", "sphere", "cylinder", "cone"]
Texture = Literal["sectors", "spiral", "checks", "faces"]
Colour = Literal["red", "orange", "yellow", "green", "cyan", "blue", "magenta", "black"]


class ViewSettings(Settings):
    """The procedural set of objects, and the views of them that are read."""

    objects: PositiveInt
    """That a model is trained with."""
    held_out: PositiveInt
    """That are kept apart, of kinds that the training has none of."""
    pixels: PositiveInt
    """Height and width of a picture."""
    samples: PositiveInt
    """Rays on each side of a pixel, whose mean is its colour."""
    solids: tuple[Solid, ...]
    textures: tuple[Texture, ...]
    colours: Annotated[tuple[Colour, ...], Field(min_length=3)]
    """Of which an object has three, of which its texture takes two or all."""
    background: Annotated[int, Field(ge=0, le=255)]
    """Grey level behind an object."""
    yaw: tuple[float, float]
    """Between which an object is turned about its vertical axis, degrees."""
    size: tuple[PositiveFloat, PositiveFloat]
    """Smallest and largest, of an object."""
    elevation: float
    """Of the given view, degrees."""
    seed: NonNegativeInt
    """The same seed makes the same objects."""
    shard_objects: PositiveInt
    """In one shard of the work."""
    max_failed_fraction: Fraction
    """Share of the objects that may fail to be read or encoded before the stage stops."""
