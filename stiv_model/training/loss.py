"""What training minimises: samples noised, masked and conditioned by draws that are a function of their position.

Shapes: B batch, F latent frames, C channels, H, W latents, T temporal tokens, S spatial tokens, M micro-conditions.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor

from stiv_model.diffusion import rectified_flow
from stiv_model.diffusion.frame_conditioning import clean_frame_mask, null_image, replace_frames
from stiv_model.latents.dataset import Batch
from stiv_model.latents.order import draw_seed
from stiv_model.network import masking
from stiv_model.network.conditions import MICRO_CONDITIONS, FrameCondition, Text
from stiv_model.network.masking import TokenMask, sample_kept
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import Mode, RecipeSettings, TrainingSettings

_GOLDEN = (math.sqrt(5) - 1) / 2


class Draws(NamedTuple):
    """The random numbers of some samples."""

    noise_BFCHW: Tensor
    timestep_B: Tensor
    drop_text_B: Tensor
    drop_image_B: Tensor
    mode_B: Tensor
    """Which of the recipe's modes of this length."""
    start_B: Tensor
    """The latent frame of the clip with which the sample starts."""
    spatial_order_BS: Tensor
    """A random order of the spatial tokens, of which the first are kept."""
    temporal_order_BF: Tensor
    """A random order of the temporal tokens, of which the first are kept; one per frame, the surplus without effect."""


def draw(
    positions: list[int],
    shape: tuple[int, ...],
    num_spatial: int,
    recipe: RecipeSettings,
    training: TrainingSettings,
) -> Draws:
    """Draw for the samples at these positions of the run (paper, sections 2.1 to 2.3 and appendix B).

    Args:
        positions: of the samples, all of one step; each decides all of its draws, with `training.seed`.
        shape: of a clip, (F, C, H, W), from whose frames the sample's are taken.
        num_spatial: spatial tokens of the model.
        recipe: its frames, modes and dropout.
        training: its seed and density of timesteps.
    """
    columns = []
    frames = draw_length(positions[0] // recipe.batch, recipe, training.seed)
    for position in positions:
        generator = torch.Generator().manual_seed(draw_seed(training.seed, "sample", position))
        noise = torch.randn((frames, *shape[1:]), generator=generator)
        uniform = torch.rand(4, generator=generator).clamp(1e-6, 1 - 1e-6)
        orders = [torch.randperm(size, generator=generator) for size in (num_spatial, frames)]
        columns.append((noise, uniform, *orders, torch.rand((), generator=generator)))
    stacked = (torch.stack(column) for column in zip(*columns, strict=True))
    noise, uniform, spatial_order_BS, temporal_order_BF, choice_B = stacked
    modes = recipe.lengths[frames]
    mode_B = choose_modes(modes, choice_B)
    strides = torch.tensor([mode.stride for mode in modes])
    starts_B = shape[0] - (frames - 1) * strides[mode_B]  # as many as leave room for the sample's last frame
    return Draws(
        noise,
        rectified_flow.sample_timesteps(uniform[:, 0], training.timestep_density, training.timestep_shift),
        uniform[:, 1] < recipe.text_dropout,
        uniform[:, 2] < recipe.image_dropout,
        mode_B,
        (uniform[:, 3] * starts_B).long(),
        spatial_order_BS,
        temporal_order_BF,
    )


def draw_length(step: int, recipe: RecipeSettings, seed: int) -> int:
    """Return the latent frames of all samples of a step, counted from 0: each length as often as its modes weigh.

    Multiples of the golden ratio, from a random one on, are spread so evenly that any stretch of steps has the shares.
    """
    lengths = recipe.lengths
    if len(lengths) == 1:
        return recipe.frames
    weights = [sum(mode.weight for mode in modes) for modes in lengths.values()]
    first = torch.rand(1, generator=torch.Generator().manual_seed(draw_seed(seed, "length", 0)), dtype=torch.float64)
    return list(lengths)[int(_chosen(weights, (first + step * _GOLDEN) % 1))]


def choose_modes(modes: tuple[Mode, ...], uniform_B: Tensor) -> Tensor:
    """Return for draws in [0, 1) the indices of the modes (B), each in proportion to its weight."""
    return _chosen([mode.weight for mode in modes], uniform_B)


def _chosen(weights: Sequence[float], uniform_B: Tensor) -> Tensor:
    ends = torch.tensor(weights, dtype=torch.float64).cumsum(0)
    return torch.searchsorted(ends, uniform_B.double() * ends[-1], right=True).clamp(max=len(weights) - 1)


def losses(
    model: StivTransformer,
    batch: Batch,
    draws: Draws,
    null_text: Text,
    recipe: RecipeSettings,
    training: TrainingSettings,
) -> Tensor:
    """Return the loss of each sample of a micro-batch (B) (paper, sections 2.1 to 2.3).

    Args:
        model: that is trained, or the engine around it.
        batch: whole clips, with captions and micro-conditions.
        draws: of `draw` for these samples.
        null_text: features of the empty caption, for one sample.
        recipe: its frames, modes and mask.
        training: its ablations.
    """
    frames = draws.noise_BFCHW.shape[1]
    modes = recipe.lengths[frames]
    strides = torch.tensor([mode.stride for mode in modes], device=batch.latents_BFCHW.device)
    data = take_frames(batch.latents_BFCHW, draws.start_B, strides[draws.mode_B], frames)
    micro = micro_conditions(batch.micro_BM, strides[draws.mode_B], frames)
    text = drop_captions(batch.text, null_text, draws.drop_text_B)

    patterns = torch.stack([clean_frame_mask(mode.clean_frames, frames) for mode in modes])
    pattern_BF = patterns.to(data.device)[draws.mode_B]
    is_clean_BF = pattern_BF & ~draws.drop_image_B[:, None]
    x = rectified_flow.interpolate(data, draws.noise_BFCHW, draws.timestep_B)
    if model.settings.image_condition != "cross_attention":
        x = replace_frames(x, data, is_clean_BF)
    bears_loss_BF = ~is_clean_BF
    if null_image(recipe.clean_frames) == "zeros":
        x = replace_frames(x, torch.zeros_like(x), pattern_BF & draws.drop_image_B[:, None])
        bears_loss_BF = ~pattern_BF
    if training.clean_frame_loss:
        bears_loss_BF = torch.ones_like(is_clean_BF)

    token_mask = draw_token_mask(draws, model.temporal_patch, recipe.mask_ratio, training.temporal_mask_ratio)
    weight = rearrange(bears_loss_BF.float(), "B F -> B F 1 1 1") * latent_weight(token_mask, data, model)
    x = x.to(next(model.parameters()).dtype)
    predicted = model(x, draws.timestep_B, text, micro, FrameCondition(data, is_clean_BF), token_mask)
    return rectified_flow.velocity_losses(predicted, rectified_flow.velocity_target(data, draws.noise_BFCHW), weight)


def take_frames(clips_BFCHW: Tensor, start_B: Tensor, stride_B: Tensor, frames: int) -> Tensor:
    """Return so many frames of each clip (B, frames, C, H, W), from its start on and its stride apart."""
    if clips_BFCHW.shape[1] == frames:
        return clips_BFCHW
    index_BF = start_B[:, None] + stride_B[:, None] * torch.arange(frames, device=start_B.device)
    return clips_BFCHW[torch.arange(len(clips_BFCHW), device=start_B.device)[:, None], index_BF]


def micro_conditions(micro_BM: Tensor, stride_B: Tensor, frames: int) -> Tensor:
    """Return the micro-conditions (B, M) of samples of the clips that `micro_BM` is of; an image has no stride."""
    micro_BM = micro_BM.clone()
    micro_BM[:, MICRO_CONDITIONS.index("frames")] = frames
    micro_BM[:, MICRO_CONDITIONS.index("stride_frames")] *= stride_B * (frames > 1)
    return micro_BM


def drop_captions(text: Text, null_text: Text, is_dropped_B: Tensor) -> Text:
    """Return the features of captions with the null text in the place of some (paper, section 2.3.2: for guidance)."""
    parts = zip(text, null_text, strict=True)
    return Text(
        *(torch.where(rearrange(is_dropped_B, f"B -> B {'1 ' * (own.ndim - 1)}"), null, own) for own, null in parts)
    )


def draw_token_mask(draws: Draws, temporal_patch: int, mask_ratio: float, temporal_mask_ratio: float) -> TokenMask:
    """Return the tokens that the main blocks shall see (paper, section 2.2)."""
    num_temporal = draws.temporal_order_BF.shape[1] // temporal_patch
    order_BF = draws.temporal_order_BF
    order_BT = order_BF[order_BF < num_temporal].view(-1, num_temporal)  # still a random order
    return TokenMask(sample_kept(draws.spatial_order_BS, mask_ratio), sample_kept(order_BT, temporal_mask_ratio))


def latent_weight(token_mask: TokenMask, data: Tensor, model: StivTransformer) -> Tensor:
    """Return the weight of each latent (B or 1, F, 1, H, W): 1 where its token is kept, else 0."""
    patch, (frames, _, height, width) = model.settings.spatial_patch, data.shape[1:]
    sizes = frames // model.temporal_patch, height * width // patch**2
    weight = masking.kept_weight(token_mask, *sizes, data.device)
    return repeat(
        weight, "B T (h w) -> B (T pt) 1 (h p) (w q)", h=height // patch, pt=model.temporal_patch, p=patch, q=patch
    )
