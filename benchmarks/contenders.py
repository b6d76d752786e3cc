"""The models that benchmarks/model.py compares, with their inputs: batch 1, the same tokens for all."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from diffusers import LatteTransformer3DModel
from torch import Tensor, nn

from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.network.masking import TokenMask, sample_kept
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import ModelSettings

FRAMES, CHANNELS, SIDE, PATCH = 20, 8, 32, 2
"""Of the latents. Latte has no temporal patch: it gets half of the frames with twice the channels."""
EXTRA = 2
"""Blocks after unmasking (paper, section 2.2)."""


class Size(NamedTuple):
    width: int
    layers: int
    heads: int
    text_tokens: int
    text_width: int


XL = Path(__file__).parents[1] / "infra/params/xl-256.yaml"
"""Whatever a size does not say."""
SIZES = {"small": Size(384, 8, 6, 120, 384), "xl": Size(1152, 28, 18, 77, 1280)}


class Runner(NamedTuple):
    """A model with its inputs."""

    model: nn.Module
    forward: Callable[[], Tensor]

    def infer(self) -> Tensor:
        with torch.no_grad():
            return self.forward()

    def step(self) -> None:
        self.model.zero_grad(set_to_none=True)
        self.forward().float().square().mean().backward()


def latte(size: Size, device: str, dtype: torch.dtype) -> Runner:
    frames, channels = FRAMES // 2, CHANNELS * 2
    model = LatteTransformer3DModel(
        num_attention_heads=size.heads,
        attention_head_dim=size.width // size.heads,
        in_channels=channels,
        out_channels=channels,
        num_layers=size.layers,
        cross_attention_dim=size.width,
        attention_bias=True,
        sample_size=SIDE,
        patch_size=PATCH,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=size.text_width,
        video_length=frames,
    ).to(device, dtype)
    x = torch.randn(1, channels, frames, SIDE, SIDE, device=device, dtype=dtype)
    text = torch.randn(1, size.text_tokens, size.text_width, device=device, dtype=dtype)
    moment = torch.tensor([500], device=device)
    return Runner(model, lambda: model(x, moment, text).sample)


def ours(size: Size, device: str, dtype: torch.dtype, extra: int, mask_ratio: float = 0.0) -> Runner:
    paper = yaml.safe_load(XL.read_text())["model"]
    settings = ModelSettings(
        **paper
        | {"width": size.width, "depth": size.layers, "unmasked_depth": extra, "heads": size.heads}
        | {"latent_channels": CHANNELS, "text_width": size.text_width}
    )
    model = StivTransformer(settings, is_video=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    model.to(device, dtype)
    x = torch.randn(1, FRAMES, CHANNELS, SIDE, SIDE, device=device, dtype=dtype)
    tokens = torch.randn(1, size.text_tokens, size.text_width, device=device, dtype=dtype)
    mask = torch.ones(1, size.text_tokens, dtype=torch.bool, device=device)
    text = Text(tokens, mask, tokens[:, -1])
    moment, micro = torch.rand(1, device=device), 100 * torch.rand(1, len(MICRO_CONDITIONS), device=device)
    kept = TokenMask(sample_kept(torch.randperm((SIDE // PATCH) ** 2, device=device)[None], mask_ratio), None)
    return Runner(model, lambda: model(x, moment, text, micro, token_mask=kept))


def ours_checkpointed(size: Size, device: str, dtype: torch.dtype) -> Runner:
    runner = ours(size, device, dtype, EXTRA, 0.5)
    runner.model.activation_checkpointing = True
    return runner


BUILD: dict[str, Callable[[Size, str, torch.dtype], Runner]] = {
    "latte": latte,
    "unmasked": lambda size, device, dtype: ours(size, device, dtype, 0),
    "masked50": lambda size, device, dtype: ours(size, device, dtype, EXTRA, 0.5),
    "unmasked_extra": lambda size, device, dtype: ours(size, device, dtype, EXTRA),
    "masked50_checkpointed": ours_checkpointed,
}


def build(name: str, size: Size, device: str, dtype: torch.dtype) -> Runner:
    torch.manual_seed(0)
    return BUILD[name](size, device, dtype)


def formula(size: Size) -> int:
    """Return the FLOPs that forward of `unmasked` must execute, without what is done once per sample."""
    width, moments, places = size.width, FRAMES // 2, (SIDE // PATCH) ** 2
    tokens = moments * places
    linear = 2 * tokens * width**2 * 18  # 4 in each self-attention, 2 for the queries of the text, 8 in feed-forward
    text = 2 * size.text_tokens * width**2 * 2
    attention = 4 * tokens * width * (places + moments + size.text_tokens)
    patches = 2 * 2 * tokens * width * 2 * CHANNELS * PATCH**2
    return size.layers * (linear + text + attention) + patches
