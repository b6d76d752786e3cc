"""The settings that the network and its training read. Values live in params.yaml, types here."""

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from typing_extensions import TypeIs

Fraction = Annotated[float, Field(ge=0, le=1)]
Pattern = Literal["none", "first", "first_four", "first_and_last", "every_second", "views"] | tuple[NonNegativeInt, ...]
"""Which latent frames are given clean: a named set, or their indices."""


class Settings(BaseModel):
    """One section of params.yaml: every key stated there, no key unknown here, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RotarySettings(Settings):
    """Rotary positions: two axes in spatial attention, one in temporal attention (paper, section 2.1)."""

    kind: Literal["rotary"]
    """Queries and keys are turned by their positions."""
    base: PositiveFloat
    """Pair i of a head of size h turns by base ** (-2 i / h) radians per token."""
    spatial_scale: PositiveFloat
    """Distance of neighbouring tokens: 1, or 0.5 where a model of half the height and width is interpolated."""
    temporal_scale: PositiveFloat
    """The same in time: 0.5 where a model of half the frames is interpolated."""


class LearnedSettings(Settings):
    """A learned vector per spatial and per temporal token, added once (paper, Tab. 2, before rotary positions)."""

    kind: Literal["learned"]
    """A table of vectors."""
    rows: PositiveInt
    """Tokens, as the two below."""
    columns: PositiveInt
    """Tokens in a row of the picture."""
    num_temporal: PositiveInt
    """Tokens in time."""


class ModelSettings(Settings):
    """Shape of `StivTransformer` (paper, Tab. 1 and section 2.1), and the rows of its ablations (Tab. 2, Fig. 6a)."""

    width: PositiveInt
    """Numbers per token (paper, Tab. 1)."""
    depth: PositiveInt
    """Main blocks, which see only the kept tokens while masking is on."""
    unmasked_depth: NonNegativeInt
    """Blocks after unmasking, on all tokens (paper, section 2.2: two)."""
    heads: PositiveInt
    """Of each attention; width / heads must be divisible by 4."""
    ffn_ratio: PositiveFloat
    """Width inside a feed-forward layer, over the width."""
    spatial_patch: PositiveInt
    """Latent pixels per side of a token."""
    temporal_patch: PositiveInt
    """Latent frames of a token of the video model; the image model's has one."""
    latent_channels: PositiveInt
    """Of the VAE."""
    text_width: PositiveInt
    """Width of one text token, and of the pooled text vector, as the text encoder gives them."""
    norm_epsilon: PositiveFloat
    """Added to the variance in every norm."""
    qk_norm: bool
    """RMSNorm of queries and keys in all three attentions."""
    sandwich_norm: bool
    """A second norm after spatial attention, temporal attention and feed-forward."""
    cross_attention_norm: bool
    """Norms before and after cross-attention as well; the paper's figure has none for it."""
    condition_norm: bool
    """Norm of each part of the singleton condition before they are summed."""
    micro_conditions: bool
    """Tell the model the source's size, the crop, the stride and the frames."""
    adaln: Literal["shared", "per_layer"]
    """One modulation for all blocks, or one of its own per block."""
    temporal_modulation: bool
    """Scale, shift and gate for temporal attention too."""
    causal_time: bool
    """Temporal attention looks back only."""
    image_condition: Literal["replacement", "cross_attention", "both"]
    """Given frames stand in their places, or are tokens that cross-attention sees, or both."""
    positions: Annotated[RotarySettings | LearnedSettings, Field(discriminator="kind")]

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @model_validator(mode="after")
    def head_size_splits(self) -> Self:
        if self.width % self.heads or self.head_size % 4:
            raise ValueError(
                f"model.width is {self.width} and model.heads is {self.heads}: the width of one head, "
                "width / heads, must be a whole number divisible by 4 (two rotary halves, one per axis)"
            )
        return self


class Mode(Settings):
    """One of several ways in which a recipe gives frames, such as the two of a model for long videos."""

    clean_frames: Pattern
    """The pattern of this mode, as that of a recipe."""
    stride: PositiveInt
    """Latent frames from one frame of a sample to the next."""
    weight: PositiveFloat
    """Share of the samples, when all weights are divided by their sum."""


class RecipeSettings(Settings):
    """One training recipe. The six recipes differ in these values and in nothing else."""

    frames: PositiveInt
    """Latent frames per sample; 1 is text-to-image."""
    steps: PositiveInt
    """Optimizer steps."""
    batch: PositiveInt
    """Samples per optimizer step, over all ranks."""
    learning_rate: PositiveFloat
    """After the warm-up, constant."""
    warmup_steps: PositiveInt
    """Over which the learning rate rises from zero."""
    mask_ratio: Annotated[float, Field(ge=0, lt=1)]
    """Share of spatial positions dropped before the main blocks."""
    clean_frames: Pattern | tuple[Mode, ...]
    """Which latent frames are given clean: none (T2V), first (STIV), first_four (video prediction),
    first_and_last (interpolation), every_second (TUP), views (multi-view), their indices, or a mixture of modes."""
    text_dropout: Fraction
    """Share of the samples that get the empty caption, for guidance."""
    image_dropout: Fraction
    """Share of the samples that get the null image, for guidance."""
    best_fraction: Annotated[float, Field(gt=0, le=1)]
    """Share of the clips trained on, the best by aesthetic score first (SFT takes a small one)."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The ways in which frames are given: the mixture, or the one pattern on neighbouring frames."""
        if is_mixture(self.clean_frames):
            return self.clean_frames
        return (Mode(clean_frames=self.clean_frames, stride=1, weight=1.0),)

    @property
    def span(self) -> int:
        """Latent frames of a clip that a sample needs."""
        return max((self.frames - 1) * mode.stride + 1 for mode in self.modes)

    @model_validator(mode="after")
    def clean_frames_are_in_the_video(self) -> Self:
        for mode in self.modes:
            _check_pattern(mode.clean_frames, self.frames)
        if is_mixture(self.clean_frames) and "views" in [mode.clean_frames for mode in self.modes]:
            raise ValueError("clean_frames is a mixture with views, whose null image is another: make two recipes")
        return self


def is_mixture(clean_frames: Pattern | tuple[Mode, ...]) -> TypeIs[tuple[Mode, ...]]:
    return bool(clean_frames) and isinstance(clean_frames[0], Mode)


def _check_pattern(pattern: Pattern, frames: int) -> None:
    needed = {"none": 1, "first_four": 5, "views": 3}
    if isinstance(pattern, str):
        least = needed.get(pattern, 2)
    else:
        least = max(pattern, default=0) + 1
        if len(set(pattern)) >= frames:
            raise ValueError(f"clean_frames gives all {frames} frames, so that none is left to make")
    if frames < least:
        raise ValueError(f"frames is {frames}, but clean_frames {pattern} needs at least {least}")


class OptimizerSettings(Settings):
    """What all recipes share (paper, section 3.1)."""

    kind: Literal["adafactor", "adamw"]
    beta1: Fraction
    """Decay of the momentum."""
    beta2: Fraction
    weight_decay: NonNegativeFloat
    """Decoupled from the gradient, as AdamW."""
    clip_norm: PositiveFloat
    """The gradient of all parameters together is scaled down to this norm."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]


class TrainingSettings(Settings):
    """How training runs on the machine, and what all recipes share."""

    ranks: PositiveInt
    """Processes on all nodes together, one per GPU, or gloo ranks on CPU."""
    nodes: PositiveInt
    """Machines that share the ranks evenly; all see the same folders."""
    launcher: str
    """The command that starts all ranks and ends with them; `tasks.training.launch.launch_command` fills it in."""
    sequence_ranks: PositiveInt
    """So many of them share the frames of each video, where a video has several (docs/sequence.md); 1 is none."""
    device: Literal["cpu", "cuda"]
    """cuda for GPUs (NCCL), cpu for gloo."""
    precision: Literal["float32", "bfloat16"]
    """Of weights and activations in the passes; bfloat16 keeps master weights and EMA in float32."""
    accumulation: PositiveInt
    """Micro-batches per optimizer step and rank."""
    activation_checkpointing: bool
    """Compute each block again in the backward pass: less memory, more time."""
    zero_stage: Literal[0, 1, 2, 3]
    """What the ranks share out: nothing; the optimizer's state; gradients too; parameters too."""
    persistent_parameters: NonNegativeInt
    """Under ZeRO-3, parameters of at most so many elements stay whole on every rank."""
    offload: Literal["none", "cpu", "nvme"]
    """Optimizer state, and under ZeRO-3 parameters, in host memory; or the former on an NVMe drive."""
    nvme_path: str | None
    """A folder on a fast local drive, for one run at a time; null unless `offload` is nvme."""
    compile: bool
    """Compile each block (torch.compile): the same results within rounding, faster after a minute or more."""
    timestep_density: Literal["uniform", "logit_normal"]
    """How often training meets each noise level."""
    timestep_shift: PositiveFloat
    """Times move towards noise by this factor, sqrt(m / n) from n to m latents per sample; 1 is none."""
    temporal_mask_ratio: Annotated[float, Field(ge=0, lt=1)]
    """Share of temporal tokens dropped before the main blocks; the paper's ablation, which hurts (Fig. 6a)."""
    clean_frame_loss: bool
    """Keep the loss on given frames; the paper's ablation (Tab. 3)."""
    outlier_sigmas: PositiveFloat
    """A step is skipped whose loss or gradient norm is this far above those of the last 200, in logarithms."""
    hang_seconds: PositiveFloat
    """A rank without progress for this long, and for ten times the median step, ends the job with all stacks."""
    checkpoint_seconds: PositiveFloat
    """At most this much work is lost when a run is killed."""
    checkpoint_steps: PositiveInt
    keep_checkpoints: PositiveInt
    """The newest ones ..."""
    keep_every_steps: NonNegativeInt
    """... and for good those after every so many steps; 0 is none."""
    validation_steps: NonNegativeInt
    """After every so many steps the EMA weights make a video of each prompt; 0 is never."""
    validation_prompts: tuple[str, ...]
    """Recipes that give frames also make as many videos from clips of the data, with their captions."""
    validation_sampling_steps: PositiveInt
    """Steps of the solver for each validation video."""
    validation_guidance_scale: NonNegativeFloat
    """1 is none, as is a recipe without dropout of what is guided by."""
    seed: int
    """Of starting weights, noise, masks and the order of samples."""
    optimizer: OptimizerSettings

    @property
    def ranks_per_node(self) -> int:
        return self.ranks // self.nodes

    @model_validator(mode="after")
    def nodes_share_the_ranks(self) -> Self:
        if self.ranks % self.nodes:
            raise ValueError(
                f"training.ranks is {self.ranks}, but training.nodes is {self.nodes}: use a multiple of {self.nodes}"
            )
        return self

    @model_validator(mode="after")
    def there_is_something_to_validate_with(self) -> Self:
        if self.validation_steps and not self.validation_prompts:
            raise ValueError(
                f"training.validation_steps is {self.validation_steps}, but training.validation_prompts is empty: "
                "name some, or set the former to 0"
            )
        return self

    @model_validator(mode="after")
    def nvme_has_a_path(self) -> Self:
        if (self.offload == "nvme") != (self.nvme_path is not None):
            raise ValueError(
                f"training.offload is {self.offload} and training.nvme_path {self.nvme_path}: nvme needs a folder on a "
                "local drive there, all else null"
            )
        return self

    @model_validator(mode="after")
    def zero_stage_can_offload(self) -> Self:
        least = {"none": 0, "cpu": 1, "nvme": 3}[self.offload]
        if self.zero_stage < least:
            raise ValueError(
                f"training.offload is {self.offload}, but training.zero_stage is {self.zero_stage}: use {least} or more"
            )
        return self

    @model_validator(mode="after")
    def sequences_are_shared_evenly(self) -> Self:
        if self.ranks % self.sequence_ranks:
            raise ValueError(
                f"training.sequence_ranks is {self.sequence_ranks}, but training.ranks is {self.ranks}: "
                f"use a divisor of {self.ranks}"
            )
        if self.sequence_ranks > 1 and self.temporal_mask_ratio:
            raise ValueError(
                f"training.sequence_ranks is {self.sequence_ranks} and training.temporal_mask_ratio "
                f"{self.temporal_mask_ratio}: ranks that share frames cannot drop some; set one of them to 1 or 0"
            )
        return self


class MonitoringSettings(Settings):
    """What watches a training. It decides no weight: a change makes no other run, and nothing is trained again."""

    trackers: tuple[Annotated[str, Field(pattern=r"^(tensorboard|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")], ...]
    """What shows figures and videos while it trains: tensorboard, or module:Class of yours (docs/trackers.md)."""


class VaeSettings(Settings):
    """The frozen VAE: an image autoencoder of diffusers, applied per frame (paper, appendix B)."""

    source: str
    """A folder as diffusers writes it, or a hub name."""
    revision: str | None
    """Commit of the hub repository, 40 digits; null for a folder."""
    sha256: str | None
    """Must be the hash of what is loaded (`Vae.sha256`), where stated; null: the hash is recorded, not checked."""
    batch_frames: PositiveInt
    """Frames coded at once; the result does not depend on it."""


class TextSettings(Settings):
    """The frozen text encoder."""

    source: str
    """A transformers folder, a hub name, or `package:NAME/FOLDER` for one carried by a Python package."""
    revision: str | None
    """Commit of the hub repository, 40 digits; null for a folder or a package."""
    sha256: str | None
    """Must be the hash of what is loaded (`TextEncoder.sha256`), where stated; null: recorded, not checked."""
    kind: Literal["clip", "t5", "bert"]
    tokens: PositiveInt
    """Length that every caption is padded to; training's captions are cut to it, a longer prompt is refused."""
    batch: PositiveInt
    """Texts encoded at once."""


class SamplerSettings(Settings):
    """From noise to latents (paper, section 2.3.2 and appendices A and B)."""

    solver: Literal["euler", "heun", "euler_maruyama", "heun_sde"]
    """Of the ODE, or of the SDE with the same marginals (paper, appendix A)."""
    steps: PositiveInt
    """Of the solver, from noise to data."""
    shift: PositiveFloat
    """Sampling steps crowd towards noise by this factor, as `training.timestep_shift`; 1 is even steps."""
    guidance: Literal["text", "joint", "separate"]
    """Text CFG, JIT-CFG, or SIT-CFG with its two scales."""
    guidance_scale: NonNegativeFloat
    """Of the text, or of text and image jointly; 1 is none."""
    image_guidance_scale: NonNegativeFloat
    """Of the image, for `separate`."""
    guidance_start: Fraction
    """Guidance acts from this time (0 is noise) ..."""
    guidance_end: Fraction
    """... to this one (1 is data)."""
    renormalise: bool
    """CFG-renormalisation."""
    batch_guidance: bool
    """Run the two or three passes of guidance as one batch: faster, with two or three times the memory."""
    original_height: PositiveInt
    """Micro-condition: height of the source video that the sample shall look like, pixels."""
    original_width: PositiveInt
    """Micro-condition: its width, pixels."""

    @model_validator(mode="after")
    def guidance_interval_is_one(self) -> Self:
        if self.guidance_start >= self.guidance_end:
            raise ValueError(
                f"sampler.guidance_start is {self.guidance_start} and sampler.guidance_end {self.guidance_end}: "
                "the start comes first"
            )
        return self


class Encoders(Settings):
    """Which frozen encoders made some latents, and so what a model trained on them needs."""

    vae_sha256: str
    text_sha256: str


class Run(Settings):
    """What one training run is: the run.json that every rank reads, and by which work is known again."""

    recipe_name: str
    latents: str
    latents_sha256: str
    """Of the table of latents, whose rows carry the hash of each latent."""
    encoders: Encoders
    """That made them."""
    parent: str | None
    parent_sha256: str | None
    """Of the weights that the run starts from."""
    temporal_parent: str | None
    temporal_parent_sha256: str | None
    """Of the weights that temporal attention starts from, where they are another model's."""
    model: ModelSettings
    recipe: RecipeSettings
    training: TrainingSettings
    monitoring: MonitoringSettings = MonitoringSettings(trackers=("tensorboard",))
    """Not in the run.json of runs that were begun before there was a choice."""

    @property
    def validates(self) -> bool:
        """Whether it gets to a step after which it makes videos."""
        return 0 < self.training.validation_steps <= self.recipe.steps

    @property
    def parents(self) -> dict[Literal["weights", "temporal"], tuple[str, str]]:
        """Folder and hash of what the run starts from."""
        found: dict[Literal["weights", "temporal"], tuple[str, str]] = {}
        if self.parent and self.parent_sha256:
            found["weights"] = (self.parent, self.parent_sha256)
        if self.temporal_parent and self.temporal_parent_sha256:
            found["temporal"] = (self.temporal_parent, self.temporal_parent_sha256)
        return found
