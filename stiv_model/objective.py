"""What training minimises: samples noised, masked and conditioned by draws that are a function of their position.

Shapes: B batch, F latent frames, C channels, T temporal tokens, S places, M micro-conditions.
"""

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor

from stiv_model import masking, velocity
from stiv_model.conditions import MICRO_CONDITIONS, Given, Text
from stiv_model.image_condition import clean_frames, null_image, replace
from stiv_model.latent_data import Batch, draw_seed
from stiv_model.masking import Kept, choose
from stiv_model.settings import RecipeSettings, TrainingSettings
from stiv_model.transformer import StivTransformer


class Draws(NamedTuple):
    """The random numbers of some samples."""

    noise_BFCHW: Tensor
    time_B: Tensor
    drop_text_B: Tensor
    drop_image_B: Tensor
    frame_B: Tensor
    """Which latent frame an image recipe takes."""
    places_BS: Tensor
    """A random order of the places, of which the first are kept."""
    moments_BF: Tensor
    """A random order of the moments, of which the first are kept; as many as frames, the surplus without effect."""


def draw(
    positions: list[int],
    shape: tuple[int, ...],
    frames: int,
    places: int,
    recipe: RecipeSettings,
    training: TrainingSettings,
) -> Draws:
    """Draw for the samples at these positions of the run; `shape` is that of one sample, (F, C, H, W)."""
    columns = []
    for position in positions:
        generator = torch.Generator().manual_seed(draw_seed(training.seed, "sample", position))
        noise = torch.randn(shape, generator=generator)
        uniform = torch.rand(4, generator=generator).clamp(1e-6, 1 - 1e-6)
        orders = (torch.randperm(size, generator=generator) for size in (places, recipe.frames))
        columns.append((noise, uniform, *orders))
    noise, uniform, places_BS, moments_BF = (torch.stack(column) for column in zip(*columns, strict=True))
    return Draws(
        noise,
        velocity.timesteps(uniform[:, 0], training.timestep_density, training.timestep_shift),
        uniform[:, 1] < recipe.text_dropout,
        uniform[:, 2] < recipe.image_dropout,
        (uniform[:, 3] * frames).long(),
        places_BS,
        moments_BF,
    )


def losses(
    model: StivTransformer,
    batch: Batch,
    draws: Draws,
    null_text: Text,
    recipe: RecipeSettings,
    training: TrainingSettings,
) -> Tensor:
    """Return the loss of each sample of a micro-batch (B,) (paper, sections 2.1 to 2.3)."""
    data = batch.latents_BFCHW
    data = data[torch.arange(len(data)), draws.frame_B][:, None] if recipe.frames == 1 else data[:, : recipe.frames]
    micro = batch.micro_BM.clone()
    micro[:, MICRO_CONDITIONS.index("frames")] = recipe.frames
    if recipe.frames == 1:
        micro[:, MICRO_CONDITIONS.index("stride_frames")] = 0
    text = drop(batch.text, null_text, draws.drop_text_B)

    pattern_F = clean_frames(recipe.clean_frames, recipe.frames).to(data.device)
    is_clean_BF = pattern_F & ~draws.drop_image_B[:, None]
    x = velocity.path(data, draws.noise_BFCHW, draws.time_B)
    if model.settings.image_condition != "cross_attention":
        x = replace(x, data, is_clean_BF)
    bears_loss_BF = ~is_clean_BF
    if null_image(recipe.clean_frames) == "zeros":
        x = replace(x, torch.zeros_like(x), pattern_F & draws.drop_image_B[:, None])
        bears_loss_BF = (~pattern_F).expand_as(is_clean_BF)
    if training.clean_frame_loss:
        bears_loss_BF = torch.ones_like(is_clean_BF)

    kept = keep_some(draws, model.temporal_patch, recipe.mask_ratio, training.temporal_mask_ratio)
    weight = rearrange(bears_loss_BF.float(), "B F -> B F 1 1 1") * latent_weight(kept, data, model)
    predicted = model(x.to(next(model.parameters()).dtype), draws.time_B, text, micro, Given(data, is_clean_BF), kept)
    return velocity.losses(predicted, velocity.target(data, draws.noise_BFCHW), weight)


def drop(text: Text, null_text: Text, is_dropped_B: Tensor) -> Text:
    """Put the null text in the place of some captions."""
    parts = zip(text, null_text, strict=True)
    return Text(
        *(torch.where(rearrange(is_dropped_B, f"B -> B {'1 ' * (own.ndim - 1)}"), null, own) for own, null in parts)
    )


def keep_some(draws: Draws, temporal_patch: int, mask_ratio: float, temporal_mask_ratio: float) -> Kept:
    """Return the tokens that the main blocks shall see."""
    moments = draws.moments_BF.shape[1] // temporal_patch
    moments_BT = draws.moments_BF[draws.moments_BF < moments].view(-1, moments)  # still a random order
    return Kept(choose(draws.places_BS, mask_ratio), choose(moments_BT, temporal_mask_ratio))


def latent_weight(kept: Kept, data: Tensor, model: StivTransformer) -> Tensor:
    """Return the weight of each latent (B or 1, F, 1, H, W): 1 where its token is kept, else 0."""
    patch, (frames, _, height, width) = model.settings.spatial_patch, data.shape[1:]
    sizes = frames // model.temporal_patch, height * width // patch**2
    weight = masking.weight(kept, *sizes, data.device)
    return repeat(
        weight, "B T (h w) -> B (T pt) 1 (h p) (w q)", h=height // patch, pt=model.temporal_patch, p=patch, q=patch
    )
