"""The settings that the network and its training read. Values live in params.yaml, types here."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
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
Device = Literal["cpu", "cuda"]
"""cuda is the first GPU that torch sees; CUDA_VISIBLE_DEVICES chooses among several."""
Precision = Literal["float32", "bfloat16"]


class Settings(BaseModel):
    """One section of params.yaml: every key stated there, no key unknown here, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RotarySettings(Settings):
    """Rotary positions: two axes in spatial attention, one in temporal attention (paper, section 2.1)."""

    kind: Literal["rotary"]
    """Rotary positions: queries and keys are rotated by an angle that grows with their position."""
    base: PositiveFloat
    """Pair i of k channels is rotated by base ** (-2 i / k) radians per token: k is a head's size in time, half of it
    for each axis in space."""
    spatial_scale: PositiveFloat
    """Distance between the positions of neighbouring tokens: 1, or 0.5 to start from a model of half the height and
    width (position interpolation)."""
    temporal_scale: PositiveFloat
    """Distance between the positions of neighbouring frames: 1, or 0.5 to start from a model of half the frames."""


class LearnedSettings(Settings):
    """A learned vector per spatial and per temporal token, added once (paper, Tab. 2, before rotary positions)."""

    kind: Literal["learned"]
    """Learned positions: a table of vectors."""
    rows: PositiveInt
    """Rows of tokens in the picture."""
    columns: PositiveInt
    """Tokens in one row of the picture."""
    num_temporal: PositiveInt
    """Tokens along time."""
    std: PositiveFloat
    """Standard deviation from which the vectors are drawn at the start. Those in time start at zero instead where a
    video model starts from an image model and `model.temporal_gain` is 0."""


class ModelSettings(Settings):
    """Shape of `StivTransformer` (paper, Tab. 1 and section 2.1), and the rows of its ablations (Tab. 2, Fig. 6a)."""

    width: PositiveInt
    """Numbers per token, the hidden size (paper, Tab. 1)."""
    depth: PositiveInt
    """Main transformer blocks; while training masks, they see only the tokens that are not masked."""
    unmasked_depth: NonNegativeInt
    """Blocks after unmasking, on all tokens (paper, section 2.2: two)."""
    heads: PositiveInt
    """Heads of each attention; width / heads must be divisible by 4."""
    ffn_ratio: PositiveFloat
    """Width inside a feed-forward layer, as a multiple of `width`."""
    spatial_patch: PositiveInt
    """Latent pixels per side of a token."""
    temporal_patch: PositiveInt
    """Latent frames of a token of the video model; the image model's has one."""
    latent_channels: PositiveInt
    """Channels of a latent, as the VAE makes them."""
    text_width: PositiveInt
    """Width of one text token, and of the pooled text vector, as the text encoder makes them."""
    norm_epsilon: PositiveFloat
    """Number added to the variance in every norm, against division by zero."""
    qk_norm: bool
    """Apply an RMSNorm to queries and keys in spatial, temporal and cross-attention."""
    sandwich_norm: bool
    """Apply a second norm after spatial attention, temporal attention and feed-forward."""
    cross_attention_norm: bool
    """Apply norms before and after cross-attention as well; the paper's figure has none there."""
    condition_norm: bool
    """Apply a norm to each part of the condition (time, pooled text, micro-conditions) before they are summed."""
    micro_conditions: bool
    """Tell the model the source's size, the crop, the stride and the number of frames."""
    adaln: Literal["shared", "per_layer"]
    """Adaptive layer norm: shared, one modulation for all blocks; per_layer, one for each block."""
    temporal_modulation: bool
    """Modulate temporal attention too, by scale, shift and gate."""
    causal_time: bool
    """Let temporal attention see only the frame itself and those before."""
    temporal_gain: FiniteFloat
    """Where the learned gain of temporal attention starts, if no earlier model gives it; at 0 a video model starts
    exactly where its image model stands."""
    temporal_contrast: Annotated[FiniteFloat, Field(ge=0)]
    """How far apart the kernels of the frames of a temporal patch start in a video model that an image model is the
    parent of, as a multiple of the image kernel's size; their mean is the image kernel. At 0 they are the same, so that
    the frames of a patch have to part by themselves."""
    image_condition: Literal["replacement", "cross_attention", "both"]
    """How the model sees frames that it is conditioned on: replacement, in place of the noisy ones; cross_attention, as
    tokens; or both."""
    positions: Annotated[RotarySettings | LearnedSettings, Field(discriminator="kind")]
    """How the model knows where a token is: kind rotary, or kind learned."""

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @model_validator(mode="after")
    def head_size_splits(self) -> Self:
        """Refuse a width that rotary positions cannot split over heads and axes."""
        if self.width % self.heads or self.head_size % 4:
            raise ValueError(
                f"model.width is {self.width} and model.heads is {self.heads}: the width of one head, "
                "width / heads, must be a whole number divisible by 4 (two rotary halves, one per axis)"
            )
        return self

    @model_validator(mode="after")
    def temporal_attention_has_the_gain(self) -> Self:
        """Refuse to start a gain that a model does not have: modulated temporal attention has a gate instead."""
        if self.temporal_gain and self.temporal_modulation:
            raise ValueError(
                f"model.temporal_gain is {self.temporal_gain}, but model.temporal_modulation is true, where a gate "
                "that starts at zero takes the gain's place: set the former to 0.0 or the latter to false"
            )
        return self

    @model_validator(mode="after")
    def temporal_patch_has_the_contrast(self) -> Self:
        """Refuse to tell the frames of a temporal patch apart where there is one."""
        if self.temporal_contrast and self.temporal_patch == 1:
            raise ValueError(
                f"model.temporal_contrast is {self.temporal_contrast}, but model.temporal_patch is 1, where no frames "
                "share a patch: set the former to 0.0"
            )
        return self


def of_earlier_release(model: Any) -> Any:
    """Return the values of a model as an earlier release wrote them down, with the keys that it had not.

    They get the values that it computed with: no gain, no contrast, and learned positions of a standard deviation of
    0.02.
    """
    if not isinstance(model, dict):
        return model
    positions = model.get("positions")
    if isinstance(positions, dict) and positions.get("kind") == "learned":
        model = model | {"positions": {"std": 0.02} | positions}
    return {"temporal_gain": 0.0, "temporal_contrast": 0.0} | model


RecordedModel = Annotated[ModelSettings, BeforeValidator(of_earlier_release)]
"""A model as a record has it that outlives a release, such as model.json beside its weights."""


class Mode(Settings):
    """One of several ways in which a recipe gives frames, such as the two of a model for long videos."""

    clean_frames: Pattern
    """Latent frames that this mode conditions on, by the names or indices that a recipe has."""
    stride: PositiveInt
    """Latent frames from one frame of a sample to the next."""
    weight: PositiveFloat
    """Share of the samples, when all weights are divided by their sum."""
    frames: PositiveInt | None = None
    """Latent frames per sample; None: as many as the recipe has. All samples of a step have the same length."""


class ConstantRate(Settings):
    """After the warm-up the learning rate stays as it is (paper, section 3.1)."""

    kind: Literal["constant"]
    """No decay: the learning rate stays at its peak."""


class RateDecay(Settings):
    """Over a recipe's last steps the learning rate falls from its peak (`stiv_model.training.learning_rate`)."""

    kind: Literal["linear", "cosine"]
    """Shape of the decay: linear, a straight line, or cosine, half a wave."""
    steps: PositiveInt
    """Steps over which the learning rate falls: the last ones of the recipe."""
    floor: Annotated[float, Field(ge=0, lt=1)]
    """Learning rate of the recipe's last step, as a share of the peak."""


class RecipeSettings(Settings):
    """One training recipe. Recipes differ in these values and in nothing else."""

    frames: PositiveInt
    """Latent frames per sample, the most where modes have fewer; 1 trains text-to-image."""
    steps: PositiveInt
    """Optimizer steps to train for."""
    batch: PositiveInt
    """Samples per optimizer step, over all ranks."""
    learning_rate: PositiveFloat
    """Learning rate after the warm-up: the peak, from which `decay` lets it fall."""
    warmup_steps: PositiveInt
    """Steps over which the learning rate rises from zero."""
    decay: Annotated[ConstantRate | RateDecay, Field(discriminator="kind")]
    """What becomes of the learning rate in the last steps: kind constant, linear or cosine."""
    mask_ratio: Annotated[float, Field(ge=0, lt=1)]
    """Share of the spatial tokens that training drops before the main blocks; 0 masks none."""
    clean_frames: Pattern | tuple[Mode, ...]
    """Latent frames that the model gets without noise, as its condition: none (T2V), first (STIV), first_four (video
    prediction), first_and_last (interpolation), every_second (TUP), views (multi-view), their indices, or a mixture of
    modes."""
    text_dropout: Fraction
    """Share of the samples whose caption is replaced by the empty one, so that text guidance works."""
    image_dropout: Fraction
    """Share of the samples whose clean frames are withheld, so that image guidance works."""
    best_fraction: Annotated[float, Field(gt=0, le=1)]
    """Share of the clips to train on, the best by aesthetic score; SFT takes few."""
    balance: Literal["category"] | None
    """How samples are drawn: null, each once in an epoch; category, the categories of captions by `categories.weights`,
    and the samples of each category in turn."""

    @property
    def lengths(self) -> dict[int, tuple[Mode, ...]]:
        """The ways in which frames are given, by latent frames per sample: a mixture, or one on neighbouring frames."""
        return modes_by_length(self.clean_frames, self.frames)

    @property
    def makes_long_videos(self) -> bool:
        """Whether it learns key frames and, at a stride that fits these, what lies between two of them."""
        for frames, modes in self.lengths.items():
            keys = {mode.stride for mode in modes if mode.clean_frames == "first"}
            if any(m.clean_frames == "first_and_last" and m.stride * (frames - 1) in keys for m in modes):
                return True
        return False

    def length_key(self, frames: int) -> str:
        """Return the key under which the recipe says a length, for messages."""
        return "frames" if frames == self.frames else "clean_frames, frames of a mode,"

    @property
    def span(self) -> int:
        """Latent frames of a clip that a sample needs."""
        return max((frames - 1) * mode.stride + 1 for frames, modes in self.lengths.items() for mode in modes)

    @model_validator(mode="after")
    def clean_frames_are_in_the_video(self) -> Self:
        """Refuse patterns that the frames of a sample do not suit, and mixtures of two null images."""
        for frames, modes in self.lengths.items():
            if frames > self.frames or (frames == 1) != (self.frames == 1):
                least = min(2, self.frames)
                raise ValueError(
                    f"a mode has frames {frames}, and the recipe {self.frames}: use {least} to {self.frames}"
                )
            for mode in modes:
                _check_pattern(mode.clean_frames, frames)
        if is_mixture(self.clean_frames) and "views" in [mode.clean_frames for mode in self.clean_frames]:
            raise ValueError("clean_frames is a mixture with views, whose null image is another: make two recipes")
        return self

    @model_validator(mode="after")
    def rate_rises_before_it_falls(self) -> Self:
        """Refuse a decay that begins before the warm-up has ended."""
        if isinstance(self.decay, RateDecay) and self.warmup_steps + self.decay.steps > self.steps:
            left = self.steps - self.warmup_steps
            fewer = f"decay.steps to {left} or fewer, " if left > 0 else ""
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and decay.steps {self.decay.steps} are more than steps "
                f"{self.steps}: set {fewer}decay to {{kind: constant}}, or steps to "
                f"{self.warmup_steps + self.decay.steps} or more"
            )
        return self


def modes_by_length(clean_frames: Pattern | tuple[Mode, ...], frames: int) -> dict[int, tuple[Mode, ...]]:
    """Return the modes of a mixture by the latent frames per sample, or one pattern as the only mode of `frames`."""
    if not is_mixture(clean_frames):
        return {frames: (Mode(clean_frames=clean_frames, stride=1, weight=1.0),)}
    found: dict[int, tuple[Mode, ...]] = {}
    for mode in clean_frames:
        length = mode.frames or frames
        found[length] = (*found.get(length, ()), mode)
    return found


def is_mixture(clean_frames: Pattern | tuple[Mode, ...]) -> TypeIs[tuple[Mode, ...]]:
    """Say whether a recipe's `clean_frames` are a mixture of modes, not one pattern."""
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
    """AdamW, or Adafactor with momentum (the paper's)."""
    beta1: Fraction
    """Decay of the first moment (momentum) per step."""
    beta2: Fraction
    """Decay of the second moment (squared gradients) per step."""
    weight_decay: NonNegativeFloat
    """Weight decay, decoupled from the gradient as in AdamW."""
    clip_norm: PositiveFloat
    """Largest norm of the gradient of all parameters together; a larger gradient is scaled down to it."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay per step of the exponential moving average of the weights, which are the weights that a run leaves."""


class TrainingSettings(Settings):
    """How training runs on the machine, and what all recipes share."""

    ranks: PositiveInt
    """Training processes on all nodes together: one per GPU, or several on the CPU."""
    nodes: PositiveInt
    """Machines that share the ranks evenly; all must see the same folders."""
    launcher: str
    """Command that starts all ranks and ends with them; its {placeholders} are described in docs/launching.md."""
    sequence_ranks: PositiveInt
    """Ranks that share the latent frames of one video (docs/sequence.md); 1 shares none."""
    device: Device
    """cuda trains on GPUs (NCCL), cpu on the processor (gloo)."""
    precision: Precision
    """Precision of weights and activations in the passes; with bfloat16, master weights and EMA stay in float32."""
    accumulation: PositiveInt
    """Micro-batches whose gradients each rank adds up for one optimizer step."""
    activation_checkpointing: bool
    """Compute each block again in the backward pass: less memory, more time."""
    zero_stage: Literal[0, 1, 2, 3]
    """What ZeRO partitions among the ranks: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 parameters too."""
    persistent_parameters: NonNegativeInt
    """Under ZeRO-3, parameters with at most this many elements stay whole on every rank. Where all do, and nothing is
    offloaded, a step costs two large collectives and no hooks: for models that fit many times."""
    offload: Literal["none", "cpu", "nvme"]
    """Where state lies that a GPU has no room for: cpu, the optimizer's state (under ZeRO-3 parameters too) in host
    memory; nvme, the optimizer's state on an NVMe drive."""
    nvme_path: str | None
    """A folder on a fast local drive, for one run at a time; null unless `offload` is nvme."""
    compile: bool
    """Compile each block (torch.compile): the same results within rounding, faster after a minute or more."""
    timestep_density: Literal["uniform", "logit_normal"]
    """Distribution from which training draws the noise level of a sample."""
    timestep_shift: PositiveFloat
    """Shift of training's noise levels: above 1 more noise, 1 none; from n to m latents per sample, sqrt(m / n)."""
    temporal_mask_ratio: Annotated[float, Field(ge=0, lt=1)]
    """Share of the temporal tokens that training drops before the main blocks; an ablation of the paper, which hurts
    (Fig. 6a)."""
    clean_frame_loss: bool
    """Count the loss on clean frames too; an ablation of the paper (Tab. 3)."""
    outlier_sigmas: PositiveFloat
    """A step is skipped when its loss or gradient norm is this many standard deviations above those of the last 200
    steps, in logarithms."""
    hang_seconds: PositiveFloat
    """The job ends, with the stacks of all threads, when a rank makes no progress for this many seconds and for ten
    times the median step."""
    checkpoint_seconds: PositiveFloat
    """A checkpoint is saved after at most this many seconds: the most work that a killed run loses."""
    checkpoint_steps: PositiveInt
    """A checkpoint is saved after at most this many steps."""
    keep_checkpoints: PositiveInt
    """How many of the newest checkpoints to keep."""
    keep_every_steps: NonNegativeInt
    """The checkpoint after every multiple of this many steps is kept for good; 0 keeps none for good."""
    validation_steps: NonNegativeInt
    """Steps between validations, in which the EMA weights make a video of each prompt; 0 makes none."""
    validation_prompts: tuple[str, ...]
    """Prompts of the validation videos; a recipe with clean frames also makes as many videos from clips of the data."""
    validation_sampling_steps: PositiveInt
    """Sampling steps of each validation video."""
    validation_guidance_scale: NonNegativeFloat
    """Guidance scale of the validation videos; 1 is none, as is a recipe that drops neither text nor image."""
    seed: int
    """Seed of starting weights, noise, masks and the order of samples."""
    optimizer: OptimizerSettings
    """The optimizer of all recipes, and the moving average of the weights."""

    @property
    def ranks_per_node(self) -> int:
        """Processes on one machine."""
        return self.ranks // self.nodes

    @model_validator(mode="after")
    def nodes_share_the_ranks(self) -> Self:
        """Refuse ranks that the nodes cannot share evenly."""
        if self.ranks % self.nodes:
            raise ValueError(
                f"training.ranks is {self.ranks}, but training.nodes is {self.nodes}: use a multiple of {self.nodes}"
            )
        return self

    @model_validator(mode="after")
    def there_is_something_to_validate_with(self) -> Self:
        """Refuse validation without prompts."""
        if self.validation_steps and not self.validation_prompts:
            raise ValueError(
                f"training.validation_steps is {self.validation_steps}, but training.validation_prompts is empty: "
                "name some, or set the former to 0"
            )
        return self

    @model_validator(mode="after")
    def nvme_has_a_path(self) -> Self:
        """Refuse a drive without a folder, and a folder without a drive."""
        if (self.offload == "nvme") != (self.nvme_path is not None):
            raise ValueError(
                f"training.offload is {self.offload} and training.nvme_path {self.nvme_path}: nvme needs a folder on a "
                "local drive there, all else null"
            )
        return self

    @model_validator(mode="after")
    def zero_stage_can_offload(self) -> Self:
        """Refuse to offload what the ZeRO stage does not partition."""
        least = {"none": 0, "cpu": 1, "nvme": 3}[self.offload]
        if self.zero_stage < least:
            raise ValueError(
                f"training.offload is {self.offload}, but training.zero_stage is {self.zero_stage}: use {least} or more"
            )
        return self

    @model_validator(mode="after")
    def sequences_are_shared_evenly(self) -> Self:
        """Refuse groups that do not divide the ranks, and to drop frames that ranks share."""
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


ValidationMetric = Literal["flicker", "motion", "dynamics_dis"]


class MonitoringSettings(Settings):
    """What watches a training. It decides no weight: a change makes no other run, and nothing is trained again."""

    trackers: tuple[Annotated[str, Field(pattern=r"^(tensorboard|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")], ...]
    """What shows figures and videos during training: tensorboard, or a class of your own as module:Class
    (docs/trackers.md)."""
    validation_metrics: tuple[ValidationMetric, ...]
    """What is measured of the validation videos (docs/trackers.md); trackers show it, and `metrics.json` beside the
    videos has it."""


class VaeSettings(Settings):
    """The frozen VAE: an image autoencoder of diffusers, applied per frame (paper, appendix B)."""

    source: str
    """The VAE: a folder as diffusers writes it, or the name of a repository on the hub."""
    revision: str | None
    """Commit of the hub repository, 40 digits; null for a folder."""
    sha256: str | None
    """sha256 that the VAE must have (every stage that loads it records it); null checks none."""
    precision: Precision
    """Precision in which the VAE computes; latents are stored in float16 in any case."""
    batch_frames: PositiveInt
    """Frames encoded or decoded at once; the result does not depend on it."""


class TextSettings(Settings):
    """The frozen text encoder."""

    source: str
    """The text encoder: a folder as transformers writes it, the name of a repository on the hub, or
    `package:NAME/FOLDER` for one that a Python package carries."""
    revision: str | None
    """Commit of the hub repository, 40 digits; null for a folder or a package."""
    sha256: str | None
    """sha256 that the text encoder must have (every stage that loads it records it); null checks none."""
    kind: Literal["clip", "t5", "bert"]
    """Architecture of the text encoder."""
    tokens: PositiveInt
    """Tokens per caption: shorter ones are padded to it, training's longer ones cut; a longer prompt is refused."""
    precision: Precision
    """Precision in which the text encoder computes; features are stored in float16 in any case."""
    batch: PositiveInt
    """Texts encoded at once; the result does not depend on it."""


class DeviceSettings(Settings):
    """Where networks compute that are not trained. It decides no byte but by rounding: a change makes nothing again."""

    encoders: Device
    """Device of the VAE and the text encoder in stage latents."""
    sampling: Device
    """Device of the model, the VAE and the text encoder in stage samples and `stiv sample`."""


class SamplerSettings(Settings):
    """From noise to latents (paper, section 2.3.2 and appendices A and B)."""

    solver: Literal["euler", "heun", "euler_maruyama", "heun_sde"]
    """euler and heun solve the ODE; euler_maruyama and heun_sde the SDE with the same marginals (paper, appendix A)."""
    steps: PositiveInt
    """Sampling steps from noise to data."""
    shift: PositiveFloat
    """Shift of the sampling times: above 1 more steps near noise, 1 even steps; as `training.timestep_shift`."""
    guidance: Literal["text", "joint", "separate"]
    """Classifier-free guidance: text, by the text alone; joint, by text and image together (JIT-CFG); separate, by each
    with a scale of its own (SIT-CFG)."""
    guidance_scale: NonNegativeFloat
    """Guidance scale of the text, or of text and image together; 1 is no guidance."""
    image_guidance_scale: NonNegativeFloat
    """Guidance scale of the image, for guidance `separate`; 1 is no guidance."""
    guidance_start: Fraction
    """Time from which guidance acts; 0 is noise, 1 is data."""
    guidance_end: Fraction
    """Time up to which guidance acts; 0 is noise, 1 is data."""
    renormalise: bool
    """Scale what guidance predicts back to the norm of the conditional prediction (CFG-renormalisation; paper,
    appendix A)."""
    batch_guidance: bool
    """Run the two or three passes of guidance as one batch: faster, with two or three times the memory."""
    original_height: PositiveInt
    """Height of the source video that the sample shall look as if cropped from, pixels (micro-condition)."""
    original_width: PositiveInt
    """Width of the source video that the sample shall look as if cropped from, pixels (micro-condition)."""

    @model_validator(mode="after")
    def guidance_interval_is_one(self) -> Self:
        """Refuse an interval that ends before it starts."""
        if self.guidance_start >= self.guidance_end:
            raise ValueError(
                f"sampler.guidance_start is {self.guidance_start} and sampler.guidance_end {self.guidance_end}: "
                "the start comes first"
            )
        return self


NULL_TEXT = "null_text.safetensors"
"""In the folder of stage latents: the features of the empty caption, as a shard of one clip. Its metadata says which
`Encoders` made all."""


class Encoders(Settings):
    """Which frozen encoders made some latents, and so what a model trained on them needs."""

    vae_sha256: str
    text_sha256: str


RUN_FILE = "run.json"
"""In the folder of a training, and beside the weights that come of it: its `Run`."""


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
    model: RecordedModel
    recipe: RecipeSettings
    training: TrainingSettings
    monitoring: MonitoringSettings = MonitoringSettings(trackers=("tensorboard",), validation_metrics=())
    """Not in the run.json of runs that were begun before there was a choice."""

    @model_validator(mode="before")
    @classmethod
    def of_an_earlier_release(cls, values: Any) -> Any:
        """Read the run.json of a run that was begun before there was a choice of what stands here."""
        if not isinstance(values, dict):
            return values
        since = {
            "recipe": {"decay": {"kind": "constant"}, "balance": None},
            "monitoring": {"validation_metrics": ()},
        }
        told = {name: chosen | values[name] for name, chosen in since.items() if isinstance(values.get(name), dict)}
        return values | told

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
