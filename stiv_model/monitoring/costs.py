"""What a model costs: parameters, FLOPs and activations, counted without running it.

The model stands on the meta device, which has shapes but no values. One main and one unmasked block are executed
there, forward and backward; the other blocks cost the same and are counted as often as the model has them.
Shapes: B batch, F latent frames, C channels, H, W latents, M micro-conditions.
"""

import math
import time
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.network.masking import TokenMask
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import ModelSettings, RecipeSettings, TrainingSettings

REST = "rest"
"""Patches, text projection, singleton condition, mask token, last layer."""
PARTS = {
    "spatial_attention": "spatial attention",
    "temporal_attention": "temporal attention",
    "temporal_gain": "temporal attention",
    "cross_attention": "cross-attention",
    "ffn": "feed-forward",
    "modulation": "AdaLN",
}
"""What a parameter belongs to, by a part of its name."""
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_FLASH_FLOPS = {  # torch counts those of CUDA only
    _FLASH: lambda q, k, v, *args, **kwargs: sdpa_flop_count(q, k, v),
    _FLASH_BACKWARD: lambda gradient, q, k, v, *args, **kwargs: sdpa_backward_flop_count(gradient, q, k, v),
}


class SampleShape(NamedTuple):
    """The size of one sample, as the model takes it."""

    frames: int
    """Latent frames; 1 is an image."""
    rows: int
    """Of latents, not of tokens."""
    columns: int
    text_tokens: int


class SampleCost(NamedTuple):
    """What one sample costs. FLOPs are of matrix products and attention; a multiply-add counts as two."""

    tokens: int
    forward_flops: int
    """Of one pass."""
    training_flops: int
    """Forward and backward."""
    checkpointed_training_flops: int
    """With activation checkpointing, where backward executes each block's forward once more."""
    activation_bytes: int
    """What forward saves for backward: each storage once, parameters left out."""
    checkpointed_activation_bytes: int
    """The inputs of all blocks, and what the largest block saves while it is executed once more."""


class BlockCost(NamedTuple):
    """What one block costs for one sample."""

    forward_flops: int
    backward_flops: int
    input_bytes: int
    """Of the tokens that it is given."""
    saved_bytes: int
    """What forward saves for backward, without what all blocks share."""
    recomputed_bytes: int
    """The same without the input."""


def build_on_meta(settings: ModelSettings, is_video: bool) -> StivTransformer:
    """Return a model without memory: its parameters have shapes, but no values."""
    with torch.device("meta"):
        return StivTransformer(settings, is_video, is_filled=False)


def count_parameters(model: StivTransformer) -> Counter[str]:
    """Return the number of parameters by what they belong to: the values of `PARTS`, and `REST`.

    All but `REST` is what the paper's labels count (its Tab. 1): blocks, and the AdaLN that they share.
    """
    count: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        belongs_to = next((PARTS[part] for part in name.split(".") if part in PARTS), REST)
        count[belongs_to] += parameter.numel()
    return count


def sample_cost(
    settings: ModelSettings, training: TrainingSettings, is_video: bool, shape: SampleShape, mask_ratio: float
) -> SampleCost:
    """Return what one sample costs in `training.precision`.

    Clean frames for cross-attention are not among its inputs; frame replacement costs nothing.

    Args:
        settings: of the model.
        training: its precision.
        is_video: whether it is the video model.
        shape: of the sample.
        mask_ratio: share of the spatial tokens that the main blocks do not see.

    Raises:
        ValueError: the frames or the picture cannot be cut into patches, or are more than the learned positions.
    """
    two_blocks = settings.model_copy(update={"depth": 1, "unmasked_depth": min(settings.unmasked_depth, 1)})
    dtype = getattr(torch, training.precision)
    model = build_on_meta(two_blocks, is_video).to(dtype)
    meter = _BlockMeter(model)
    num_tokens, inputs = _inputs(model, shape, dtype, mask_ratio)
    with FlopCounterMode(display=False, custom_mapping=_FLASH_FLOPS) as counter, _FlashAttention():
        meter.counter = counter
        with saved_tensors_hooks(meter.save, lambda tensor: tensor):
            out = model(**inputs)
        forward = counter.get_total_flops()
        out.sum().backward()
        both = counter.get_total_flops()

    repeated = [(settings.depth, meter.cost(model.main_blocks[0]))]
    if settings.unmasked_depth:
        repeated.append((settings.unmasked_depth, meter.cost(model.unmasked_blocks[0])))
    further = [(times - 1, block) for times, block in repeated]
    outside = meter.saved_bytes() - sum(block.saved_bytes for _, block in repeated)
    in_blocks = sum(times * block.forward_flops for times, block in repeated)
    training_flops = both + sum(times * (block.forward_flops + block.backward_flops) for times, block in further)
    return SampleCost(
        tokens=num_tokens,
        forward_flops=forward + sum(times * block.forward_flops for times, block in further),
        training_flops=training_flops,
        checkpointed_training_flops=training_flops + in_blocks,
        activation_bytes=outside + sum(times * block.saved_bytes for times, block in repeated),
        checkpointed_activation_bytes=outside
        + sum(times * block.input_bytes for times, block in repeated)
        + max(block.recomputed_bytes for _, block in repeated),
    )


def recipe_cost(
    settings: ModelSettings, training: TrainingSettings, recipe: RecipeSettings, shape: SampleShape
) -> SampleCost:
    """Return what a sample of a recipe costs: the mean over its lengths, as they weigh, and the most activations.

    Args:
        settings: of the model.
        training: its precision.
        recipe: its lengths and mask.
        shape: of a sample, whose frames are those of the recipe.

    Raises:
        ValueError: as `sample_cost`.
    """
    is_video = recipe.frames > 1
    each = [
        sample_cost(settings, training, is_video, shape._replace(frames=frames), recipe.mask_ratio)
        for frames in recipe.lengths
    ]
    weights = [sum(mode.weight for mode in modes) for modes in recipe.lengths.values()]
    most = {"activation_bytes", "checkpointed_activation_bytes"}
    return SampleCost(
        *(
            max(values) if name in most else round(float(np.average(values, weights=weights)))
            for name, values in zip(SampleCost._fields, zip(*each, strict=True), strict=True)
        )
    )


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a plain matrix product on this device, with the threads that torch has: the best of five.

    Args:
        device: whose peak is wanted.
        dtype: of the two square matrices.
    """
    size = 8192 if device.type == "cuda" else 1024
    left, right = torch.randn(2, size, size, device=device, dtype=dtype)
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _inputs(
    model: StivTransformer, shape: SampleShape, dtype: torch.dtype, mask_ratio: float
) -> tuple[int, dict[str, Any]]:
    """Return how many tokens one sample has, and the arguments of the model on the meta device."""
    settings = model.settings
    num_spatial = shape.rows * shape.columns // settings.spatial_patch**2
    with torch.device("meta"):
        text = Text(
            torch.empty(1, shape.text_tokens, settings.text_width, dtype=dtype),
            torch.empty(1, shape.text_tokens, dtype=torch.bool),
            torch.empty(1, settings.text_width, dtype=dtype),
        )
        inputs = {
            "x_BFCHW": torch.empty(1, shape.frames, settings.latent_channels, shape.rows, shape.columns, dtype=dtype),
            "timestep_B": torch.empty(1),
            "text": text,
            "micro_BM": torch.empty(1, len(MICRO_CONDITIONS)),
        }
        if mask_ratio:
            num_kept = num_spatial - round(num_spatial * mask_ratio)  # as masking.sample_kept, which needs an order
            inputs["token_mask"] = TokenMask(torch.empty(1, num_kept, dtype=torch.long), None)
    return num_spatial * shape.frames // model.temporal_patch, inputs


class _BlockMeter:
    """Reads, at the borders of blocks, the FLOPs so far and what has been saved for backward so far.

    Backward passes the borders in order: autograd executes what was recorded last first.
    """

    counter: FlopCounterMode

    def __init__(self, model: StivTransformer):
        self.parameters = {_storage(parameter) for parameter in model.parameters()}
        self.saved: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice
        self.shared: set[int] = set()
        self.read: dict[tuple[nn.Module, str], int] = {}
        self.input_of: dict[nn.Module, tuple[int, int]] = {}
        self.saved_in: dict[nn.Module, list[int]] = {}
        for block in (*model.main_blocks, *model.unmasked_blocks):
            block.register_forward_pre_hook(self.enter, with_kwargs=True)
            block.register_forward_hook(self.leave)

    def save(self, tensor: Tensor) -> Tensor:
        if _storage(tensor) not in self.parameters:
            self.saved.setdefault(_storage(tensor), tensor.untyped_storage())
        return tensor

    def enter(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        x, *conditions = args
        self.shared |= {_storage(part) for part in tree_leaves((conditions, kwargs)) if isinstance(part, Tensor)}
        self.input_of[block] = _storage(x), x.untyped_storage().nbytes()
        self.saved_in[block] = list(self.saved)
        self.mark(block, "enter")
        x = x.view_as(x)  # recorded here, so that backward comes by before it goes on to what was recorded earlier
        x.register_hook(lambda gradient: self.mark(block, "backward leave"))
        return (x, *conditions), kwargs

    def leave(self, block: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        before = set(self.saved_in[block])
        self.saved_in[block] = [address for address in self.saved if address not in before | self.shared]
        self.mark(block, "leave")
        out.register_hook(lambda gradient: self.mark(block, "backward enter"))

    def mark(self, block: nn.Module, border: str) -> None:
        self.read[block, border] = self.counter.get_total_flops()

    def saved_bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.saved.values())

    def cost(self, block: nn.Module) -> BlockCost:
        input_address, size = self.input_of[block]
        own = {address: self.saved[address].nbytes() for address in self.saved_in[block]}
        return BlockCost(
            forward_flops=self.read[block, "leave"] - self.read[block, "enter"],
            backward_flops=self.read[block, "backward leave"] - self.read[block, "backward enter"],
            input_bytes=size,
            saved_bytes=sum(own.values()),
            recomputed_bytes=sum(own.values()) - own.get(input_address, 0),
        )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _FlashAttention(TorchFunctionMode):
    """Execute attention as one kernel, as real devices do; the meta device would materialise its matrix."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kernel = _flash_attention if function is F.scaled_dot_product_attention else function
        return kernel(*args, **(kwargs or {}))


def _flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    """Saves query, key, value, the output and a float32 per query for backward, as the kernels of CUDA do."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, float("-inf"))
    return _FLASH(query, key, value, dropout_p, is_causal, attn_mask=attn_mask)[0]
