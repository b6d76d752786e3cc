"""The layers that blocks are made of.

Shapes: B batch, T temporal tokens, S spatial tokens, L tokens of the context of cross-attention, D width, N heads,
H head size, E width of what is embedded.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stiv_model.network.rope import as_complex, rotate
from stiv_model.settings import ModelSettings


class Modulation(NamedTuple):
    """What one sub-layer takes from the singleton condition by AdaLN, each (B, 1, 1, D) (paper, section 2.1)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def norm(x: Tensor, epsilon: float) -> Tensor:
    """Return x (..., D) normed over its last axis: LayerNorm without learned scale or shift (paper, section 2.1)."""
    return F.layer_norm(x, x.shape[-1:], eps=epsilon)


def modulate(x: Tensor, modulation: Modulation) -> Tensor:
    """Return (1 + scale) x + shift, of the shape of x (B, T, S, D) (DiT, arXiv 2212.09748, section 3.2)."""
    return torch.addcmul(modulation.shift, x, 1 + modulation.scale)


def sinusoidal_embedding(x: Tensor, width: int) -> Tensor:
    """Embed scalars (...) as cosines and sines (..., width) of geometrically spaced frequencies, 1 to 1/10000.

    The timestep embedding of DDPM and DiT. In float32 at least; `width` is even.
    """
    half = width // 2
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=x.device, dtype=x.dtype) / half)
    angles = x[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Embedder(nn.Sequential):
    """A two-layer perceptron from an embedding (..., E) to the width of the model (..., D)."""

    def __init__(self, embedding_width: int, width: int):
        super().__init__(nn.Linear(embedding_width, width), nn.SiLU(), nn.Linear(width, width))


class FeedForward(nn.Sequential):
    """A two-layer perceptron on each token (..., D), `ratio` times as wide inside, with GELU in its tanh form."""

    def __init__(self, width: int, ratio: float):
        hidden = int(width * ratio)
        super().__init__(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))


class QkNorm(nn.Module):
    """RMSNorm of queries and keys over the head size, each with a learned scale (paper, section 2.1)."""

    def __init__(self, head_size: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.query = nn.RMSNorm(head_size, eps=epsilon)
        self.key = nn.RMSNorm(head_size, eps=epsilon)

    def forward(self, query: Tensor, key: Tensor, rotary_factors: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return queries and keys (..., H), normed, then rotated where there are rotary factors.

        Args:
            query: (..., H).
            key: (..., H).
            rotary_factors: unit complex numbers, broadcastable to (..., H / 2); None rotates nothing.
        """
        return (
            norm_and_rotate(query, self.query.weight, rotary_factors, self.epsilon),
            norm_and_rotate(key, self.key.weight, rotary_factors, self.epsilon),
        )


def norm_and_rotate(x: Tensor, scale: Tensor, rotary_factors: Tensor | None, epsilon: float) -> Tensor:
    """Return x (..., H) divided by its root mean square, times `scale` (H), then rotated.

    Args:
        x: queries or keys.
        scale: learned, per channel of a head.
        rotary_factors: unit complex numbers, broadcastable to (..., H / 2); None rotates nothing.
        epsilon: added to the mean square.
    """
    if torch.compiler.is_compiling():  # the compiler fuses the formula, and its gradient, by itself
        x = F.rms_norm(x, scale.shape, scale, epsilon)
        return x if rotary_factors is None else rotate(x, rotary_factors)
    return _NormAndRotate.apply(x, scale, rotary_factors, epsilon)


class _NormAndRotate(torch.autograd.Function):
    """The same in few passes over memory, which is all that it costs: step by step, there are several times as many.

    With r = 1 / sqrt(mean(x^2) + epsilon), n = x r and a rotation R, y = R(scale n). Given dy:
    g = R^-1(dy), dscale = sum(g n), dx = r (scale g - n mean(scale g n)). Only x, which attention holds
    anyway, and r are kept. All is computed in float32 at least.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, rotary_factors: Tensor | None, epsilon: float) -> Tensor:
        y = _copy(x)
        r = torch.linalg.vector_norm(y, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        y.mul_(r).mul_(scale)
        if rotary_factors is not None:
            as_complex(y).mul_(rotary_factors)
        ctx.save_for_backward(x, scale, rotary_factors, r)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, scale, rotary_factors, r = ctx.saved_tensors
        n, g = _copy(x).mul_(r), _copy(dy)
        if rotary_factors is not None:
            as_complex(g).mul_(rotary_factors.conj())
        gn = g * n
        dscale = gn.flatten(0, -2).sum(0).to(scale.dtype)
        mean = gn @ (scale.to(gn.dtype) / x.shape[-1])
        dx = g.mul_(scale).addcmul_(n, mean[..., None], value=-1).mul_(r)
        return dx.to(x.dtype), dscale, None, None


def _copy(x: Tensor) -> Tensor:
    """Return a contiguous copy that may be overwritten, in float32 at least."""
    return torch.empty(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device).copy_(x)


class SelfAttention(nn.Module):
    """Attention along one axis of tokens (B, T, S, D), with QK-norm, then rotary positions (paper, section 2.1).

    Along time, the heads of all spatial tokens stand side by side as if they were heads of one token per time: no
    token is moved.

    Args:
        axis: `spatial`, each frame by itself, or `temporal`, each position of a frame by itself.
        is_causal: tokens see themselves and what comes before.
    """

    def __init__(self, settings: ModelSettings, axis: Literal["spatial", "temporal"], is_causal: bool = False):
        super().__init__()
        self.heads, self.is_causal = settings.heads, is_causal
        self.layout = "(B T) N S H" if axis == "spatial" else "B (S N) T H"
        self.qkv = nn.Linear(settings.width, 3 * settings.width)
        self.qk_norm = QkNorm(settings.head_size, settings.norm_epsilon) if settings.qk_norm else None
        self.out = nn.Linear(settings.width, settings.width)

    def forward(self, x_BTSD: Tensor, rotary_factors: Tensor | None) -> Tensor:
        """Return what the tokens attend to, projected (B, T, S, D).

        Args:
            x_BTSD: tokens, normed and modulated.
            rotary_factors: unit complex numbers, broadcastable to (B, T, S, N, H / 2); None where positions are
                learned.
        """
        batch, num_temporal, num_spatial, _ = x_BTSD.shape
        qkv = rearrange(self.qkv(x_BTSD), "B T S (three N H) -> B T S three N H", three=3, N=self.heads)
        query, key, value = qkv.unbind(3)
        if self.qk_norm is not None:
            query, key = self.qk_norm(query, key, rotary_factors)
        elif rotary_factors is not None:
            query, key = rotate(query, rotary_factors), rotate(key, rotary_factors)
        query, key, value = (rearrange(part, f"B T S N H -> {self.layout}") for part in (query, key, value))
        out = F.scaled_dot_product_attention(query, key, value, is_causal=self.is_causal)
        sizes = {"B": batch, "T": num_temporal, "S": num_spatial}
        return self.out(rearrange(out, f"{self.layout} -> B T S (N H)", **sizes))


class CrossAttention(nn.Module):
    """Attention of tokens (B, T, S, D) to the context of their sample, with QK-norm and without positions.

    The context is the text, and clean frames where the model sees them that way (paper, section 2.1 and Tab. 3).
    """

    def __init__(self, settings: ModelSettings):
        super().__init__()
        self.heads = settings.heads
        self.query = nn.Linear(settings.width, settings.width)
        self.key_value = nn.Linear(settings.width, 2 * settings.width)
        self.qk_norm = QkNorm(settings.head_size, settings.norm_epsilon) if settings.qk_norm else None
        self.out = nn.Linear(settings.width, settings.width)

    def forward(self, x_BTSD: Tensor, context_BLD: Tensor, context_mask_BL: Tensor) -> Tensor:
        """Return what the tokens take from the context, projected (B, T, S, D).

        Args:
            x_BTSD: tokens, which give the queries.
            context_BLD: gives keys and values.
            context_mask_BL: False at padding, which nothing attends to.
        """
        num_temporal = x_BTSD.shape[1]
        query = rearrange(self.query(x_BTSD), "B T S (N H) -> B N (T S) H", N=self.heads)
        key, value = rearrange(self.key_value(context_BLD), "B L (two N H) -> two B N L H", two=2, N=self.heads)
        if self.qk_norm is not None:
            query, key = self.qk_norm(query, key, None)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=context_mask_BL[:, None, None, :])
        return self.out(rearrange(out, "B N (T S) H -> B T S (N H)", T=num_temporal))
