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
    """Longer videos are rejected."""
    hdr: Literal["tone_map", "reject"]
    """High dynamic range (HLG, PQ): brought to the standard one by the curve of ITU-R BT.2390, or rejected."""
    min_side: PositiveInt
    """A video with a smaller width or height is rejected, pixels."""
    max_caption_characters: PositiveInt
    """A video with a longer text beside it is rejected: training would see half a caption."""
    max_failed_fraction: Fraction
    """Largest share of the files that may fail before the stage stops."""
    shard_files: PositiveInt
    """Files in one shard of work; more where there would be over 2,000 shards."""
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
    """What finds hard cuts: content or adaptive, PySceneDetect's detectors as they are; both, the two together, of the
    content one only what stands out (a fast pan does not); or transnet, the network TransNet V2, which finds fades and
    dissolves too."""
    content_threshold: PositiveFloat
    """PySceneDetect ContentDetector: mean change of hue, saturation and value (levels) that makes a hard cut."""
    adaptive_threshold: PositiveFloat
    """PySceneDetect AdaptiveDetector: how many times the change of the frames around it a hard cut changes the
    picture."""
    adaptive_min_content: NonNegativeFloat
    """PySceneDetect AdaptiveDetector: change (levels) below which nothing is a hard cut."""
    fade_threshold: PositiveFloat
    """A picture at most this many levels (of 255) from black, or from white, has faded out."""
    dissolve_misfit: Annotated[float, Field(gt=0, lt=1)]
    """How far the dip of contrast may be from a dissolve's, relative to its depth; higher finds more, and more that
    are none."""
    transnet_weights: str
    """A file of TransNet V2's parameters, or `package:NAME/FILE`; read only if the detector is transnet."""
    transnet_threshold: Annotated[float, Field(gt=0, lt=1)]
    """Probability from which TransNet V2 counts a frame as one of a transition."""
    min_seconds: PositiveFloat
    """Shorter shots are rejected."""
    max_seconds: PositiveFloat
    """Longer shots are split."""
    analysis_pixels: PositiveInt
    """Longer side of the picture that is analysed, pixels."""
    motion: Annotated[DisSettings | RaftSettings, Field(discriminator="kind")]
    """What estimates the motion from a frame to the next."""
    motion_every: PositiveInt
    """Motion is measured on every n-th pair of frames."""
    stills: PositiveInt
    """Small pictures kept per shot for the scores, captions and report."""
    part_seconds: PositiveFloat
    """A longer video is cut into parts of this many seconds for several processes; a shot is split where parts meet."""
    shard_seconds: PositiveFloat
    """Seconds of video per shard of work; at most one shard's work is lost when the stage is killed."""
    max_failed_fraction: Fraction
    """Share of the videos that may fail to be split before the stage stops."""

    @model_validator(mode="after")
    def some_length_is_kept(self) -> Self:
        if self.min_seconds > self.max_seconds:
            raise ValueError(
                f"shots.min_seconds {self.min_seconds} is above max_seconds {self.max_seconds}: none is kept"
            )
        return self
