"""The settings that the network and its training read. Values live in params.yaml, types here."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0, le=1)]
Pattern = Literal["none", "first", "every_second"]


class Settings(BaseModel):
    """One section of params.yaml: every key stated there, no key unknown here, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(Settings):
    """Shape of `StivTransformer` (paper, Tab. 1 and section 2.1)."""

    width: PositiveInt
    depth: PositiveInt
    """Main blocks, which see only the kept tokens while masking is on."""
    unmasked_depth: PositiveInt
    """Blocks after unmasking, on all tokens (paper, section 2.2: two)."""
    heads: PositiveInt
    ffn_ratio: PositiveFloat
    spatial_patch: PositiveInt
    temporal_patch: PositiveInt
    latent_channels: PositiveInt
    text_width: PositiveInt
    """Width of one text token, and of the pooled text vector, as the text encoder gives them."""
    rope_base: PositiveFloat
    norm_epsilon: PositiveFloat

    @model_validator(mode="after")
    def head_size_splits(self):
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise ValueError(
                f"model.width is {self.width} and model.heads is {self.heads}: the width of one head, "
                "width / heads, must be a whole number divisible by 4 (two rotary halves, one per axis)"
            )
        return self


class RecipeSettings(Settings):
    """One training recipe. The six recipes differ in these values and in nothing else."""

    frames: PositiveInt
    """Latent frames per sample; 1 is text-to-image."""
    steps: PositiveInt
    batch: PositiveInt
    """Samples per optimizer step, over all ranks."""
    learning_rate: PositiveFloat
    warmup_steps: PositiveInt
    mask_ratio: Annotated[float, Field(ge=0, lt=1)]
    """Share of spatial positions dropped before the main blocks."""
    clean_frames: Pattern
    """Which latent frames are given clean: none (T2V), first (STIV), every_second (TUP)."""
    text_dropout: Fraction
    image_dropout: Fraction
    best_fraction: Annotated[float, Field(gt=0, le=1)]
    """Share of the clips trained on, the best by aesthetic score first (SFT takes a small one)."""


class OptimizerSettings(Settings):
    """What all recipes share (paper, section 3.1)."""

    kind: Literal["adamw"]
    beta1: Fraction
    beta2: Fraction
    weight_decay: NonNegativeFloat
    clip_norm: PositiveFloat
    ema_decay: Annotated[float, Field(ge=0, lt=1)]


class TrainingSettings(Settings):
    """How training runs on the machine, and what all recipes share."""

    ranks: PositiveInt
    """Processes on this node, one per GPU, or gloo ranks on CPU."""
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bfloat16"]
    accumulation: PositiveInt
    """Micro-batches per optimizer step and rank."""
    activation_checkpointing: bool
    offload: Literal["none", "cpu"]
    timestep_density: Literal["uniform", "logit_normal"]
    checkpoint_seconds: PositiveFloat
    """At most this much work is lost when a run is killed."""
    checkpoint_steps: PositiveInt
    keep_checkpoints: PositiveInt
    seed: int
    optimizer: OptimizerSettings


class VaeSettings(Settings):
    """The frozen VAE: a diffusers AutoencoderKL, applied per frame (paper, appendix B)."""

    source: str
    """A folder as diffusers writes it, or a hub name."""
    revision: str | None
    """Commit of the hub repository; null for a folder."""
    batch_frames: PositiveInt


class TextSettings(Settings):
    """The frozen text encoder."""

    source: str
    """A transformers folder, a hub name, or `package:NAME/FOLDER` for one carried by a Python package."""
    revision: str | None
    kind: Literal["clip", "t5", "bert"]
    tokens: PositiveInt
    """Length that every caption is padded or cut to."""
    batch: PositiveInt


class SamplerSettings(Settings):
    """From noise to latents (paper, section 2.3.2: JIT-CFG; appendix B: scale 7.5)."""

    steps: PositiveInt
    guidance_scale: NonNegativeFloat
    renormalise: bool
    original_height: PositiveInt
    """Micro-condition: height of the source video that the sample shall look like, pixels."""
    original_width: PositiveInt


class Run(Settings):
    """What one training run is: the run.json that every rank reads, and by which work is known again."""

    recipe_name: str
    latents: str
    latents_sha256: str
    """Of the table of latents, whose rows carry the hash of each latent."""
    parent: str | None
    parent_sha256: str | None
    """Of the weights that the run starts from."""
    model: ModelSettings
    recipe: RecipeSettings
    training: TrainingSettings
