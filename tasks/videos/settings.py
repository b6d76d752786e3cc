"""Settings of the stages videos and shots. Values live in params.yaml, types here."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from stiv_model.settings import Fraction, Settings


class VideoSettings(Settings):
    """Which raw files are videos that we use."""

    extensions: list[str]
    """Endings of names that are opened, in small letters, with the dot."""
    min_seconds: NonNegativeFloat
    """Shorter videos are rejected."""
    max_seconds: PositiveFloat
    """Longer ones are rejected."""
    min_side: PositiveInt
    max_caption_characters: PositiveInt
    """A longer text beside a video rejects it: half a caption would be trained on."""
    max_failed_fraction: Fraction
    forgotten: list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    """sha256 of videos that are never used again; `stiv forget` adds to it."""


class DisSettings(Settings):
    """Motion by dense inverse search: a third of a millisecond per pair of frames, no weights."""

    kind: Literal["dis"]
    """OpenCV's dense inverse search."""


class RaftSettings(Settings):
    """Motion by the network RAFT: thousands of times the cost, so `sandbox.seconds_per_frame` must rise with it."""

    kind: Literal["raft"]
    """The network RAFT, as an ONNX file that you name."""
    weights: str
    """An ONNX file as `tasks/decoding/raft.py` describes it, or `package:NAME/FILE`."""


class ShotSettings(Settings):
    """Cuts, fades and dissolves, and what is measured in the same decoding pass."""

    detector: Literal["content", "adaptive", "both", "transnet"]
    """Of hard cuts: PySceneDetect's ContentDetector or AdaptiveDetector as they are; both, of the content one only what
    stands out (a fast pan does not); or the network TransNet V2, which finds fades and dissolves too."""
    content_threshold: PositiveFloat
    """PySceneDetect ContentDetector: mean change of hue, saturation and value (levels) that makes a hard cut."""
    adaptive_threshold: PositiveFloat
    """PySceneDetect AdaptiveDetector: times the change around it that a hard cut's is."""
    adaptive_min_content: NonNegativeFloat
    """PySceneDetect AdaptiveDetector: change below which nothing is a cut."""
    fade_threshold: PositiveFloat
    """Levels (0-255) from black, or from white, at which the picture has faded out."""
    dissolve_misfit: Annotated[float, Field(gt=0, lt=1)]
    """How far the dip of contrast may be from a dissolve's, relative to its depth; higher finds more, and more that
    are none."""
    transnet_weights: str
    """A file of TransNet V2's parameters, or `package:NAME/FILE`; read only if the detector is transnet."""
    transnet_threshold: Annotated[float, Field(gt=0, lt=1)]
    """Probability from which TransNet V2 counts a frame as one of a transition."""
    min_seconds: PositiveFloat
    max_seconds: PositiveFloat
    analysis_pixels: PositiveInt
    """Longer side of the picture that is analysed."""
    motion: Annotated[DisSettings | RaftSettings, Field(discriminator="kind")]
    """What estimates the motion from a frame to the next."""
    motion_every: PositiveInt
    """Motion is measured on one pair of frames in this many."""
    stills: PositiveInt
    """Small pictures kept per shot for the scores, captions and report."""
    part_seconds: PositiveFloat
    """Of a video that one process analyses: a longer one is shared out, and a shot is split where parts meet."""
    shard_seconds: PositiveFloat
    """Of video in one shard: work is shared out by duration, and at most this much is lost when it is killed."""
    max_failed_fraction: Fraction
    """Share of the videos that may fail to be split before the stage stops."""

    @model_validator(mode="after")
    def some_length_is_kept(self) -> Self:
        if self.min_seconds > self.max_seconds:
            raise ValueError(
                f"shots.min_seconds {self.min_seconds} is above max_seconds {self.max_seconds}: none is kept"
            )
        return self
