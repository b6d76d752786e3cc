"""The layers that blocks are made of.

Shapes: B batch, L tokens (any kind), D width, N heads, H head size, E width of what is embedded.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stiv_model.rope import rotate


class Modulation(NamedTuple):
    """What one sub-layer takes from the singleton condition, each (B, 1, D)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def norm(x: Tensor, epsilon: float) -> Tensor:
    """Stateless LayerNorm over the width: no learned scale or shift (paper, section 2.1)."""
    return F.layer_norm(x, x.shape[-1:], eps=epsilon)


def modulate(x: Tensor, by: Modulation) -> Tensor:
    return x * (1 + by.scale) + by.shift


def sinusoid(x: Tensor, width: int) -> Tensor:
    """Embed scalars (...) as cosines and sines (..., width) of geometrically spaced frequencies, 1 to 1/10000."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=x.device) / half)
    turns = x.float()[..., None] * frequencies
    return torch.cat([turns.cos(), turns.sin()], dim=-1)


class Embedder(nn.Sequential):
    """A two-layer perceptron from an embedding (..., E) to the width of the model."""

    def __init__(self, given: int, width: int):
        super().__init__(nn.Linear(given, width), nn.SiLU(), nn.Linear(width, width))


class FeedForward(nn.Sequential):
    def __init__(self, width: int, ratio: float):
        hidden = int(width * ratio)
        super().__init__(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))


class QkNorm(nn.Module):
    """RMSNorm of queries and keys over the head size, each with a learned scale (paper, section 2.1)."""

    def __init__(self, head_size: int, epsilon: float):
        super().__init__()
        self.query = nn.RMSNorm(head_size, eps=epsilon)
        self.key = nn.RMSNorm(head_size, eps=epsilon)

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self.query(q), self.key(k)


class SelfAttention(nn.Module):
    """Attention of tokens (B, L, D) to each other, with QK-norm, then rotary positions."""

    def __init__(self, width: int, heads: int, epsilon: float):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.qk_norm = QkNorm(width // heads, epsilon)
        self.out = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, turn: Tensor) -> Tensor:
        """`turn`: angles (L, H / 2), or (B, 1, L, H / 2) when the samples' tokens stand in different places."""
        q, k, v = rearrange(self.qkv(x_BLD), "B L (three N H) -> three B N L H", three=3, N=self.heads)
        q, k = self.qk_norm(q, k)
        out = F.scaled_dot_product_attention(rotate(q, turn), rotate(k, turn), v)
        return self.out(rearrange(out, "B N L H -> B L (N H)"))


class CrossAttention(nn.Module):
    """Attention of tokens (B, L, D) to the text tokens of their sample, with QK-norm."""

    def __init__(self, width: int, heads: int, epsilon: float):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.qk_norm = QkNorm(width // heads, epsilon)
        self.out = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, text_BLD: Tensor, text_mask_BL: Tensor) -> Tensor:
        """`text_mask_BL` is True at text, False at padding, which nothing attends to."""
        q = rearrange(self.query(x_BLD), "B L (N H) -> B N L H", N=self.heads)
        k, v = rearrange(self.key_value(text_BLD), "B L (two N H) -> two B N L H", two=2, N=self.heads)
        q, k = self.qk_norm(q, k)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=text_mask_BL[:, None, None, :])
        return self.out(rearrange(out, "B N L H -> B L (N H)"))
