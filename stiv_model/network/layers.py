"""The layers that blocks are made of.

Shapes: B batch, T temporal tokens, S spatial tokens, L keys of cross-attention, D width, N heads, H head size,
E width of what is embedded.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stiv_model.network.rope import as_complex, rotate
from stiv_model.settings import ModelSettings


class Modulation(NamedTuple):
    """What one sub-layer takes from the singleton condition, each (B, 1, 1, D)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def norm(x: Tensor, epsilon: float) -> Tensor:
    """Stateless LayerNorm over the width: no learned scale or shift (paper, section 2.1)."""
    return F.layer_norm(x, x.shape[-1:], eps=epsilon)


def modulate(x: Tensor, by: Modulation) -> Tensor:
    return torch.addcmul(by.shift, x, 1 + by.scale)


def sinusoid(x: Tensor, width: int) -> Tensor:
    """Embed scalars (...) as cosines and sines (..., width) of geometrically spaced frequencies, 1 to 1/10000."""
    half = width // 2
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=x.device, dtype=x.dtype) / half)
    turns = x[..., None] * frequencies
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
        self.epsilon = epsilon
        self.query = nn.RMSNorm(head_size, eps=epsilon)
        self.key = nn.RMSNorm(head_size, eps=epsilon)

    def forward(self, q: Tensor, k: Tensor, turn: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return queries and keys (..., H), normed, then rotated by `turn` where there is one."""
        return (
            norm_and_rotate(q, self.query.weight, turn, self.epsilon),
            norm_and_rotate(k, self.key.weight, turn, self.epsilon),
        )


def norm_and_rotate(x: Tensor, scale: Tensor, turn: Tensor | None, epsilon: float) -> Tensor:
    """Return x (..., H) divided by its root mean square, times `scale` (H), rotated by `turn` (..., H / 2)."""
    if torch.compiler.is_compiling():  # the compiler fuses the formula, and its gradient, by itself
        x = F.rms_norm(x, scale.shape, scale, epsilon)
        return x if turn is None else rotate(x, turn)
    return _NormAndRotate.apply(x, scale, turn, epsilon)


class _NormAndRotate(torch.autograd.Function):
    """The same in few passes over memory, which is all that it costs: step by step, there are several times as many.

    With r = 1 / sqrt(mean(x^2) + epsilon), n = x r and a rotation R, y = R(scale n). Given dy:
    g = R^-1(dy), dscale = sum(g n), dx = r (scale g - n mean(scale g n)). Only x, which attention holds
    anyway, and r are kept. All is computed in float32 at least.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, turn: Tensor | None, epsilon: float) -> Tensor:
        y = _copy(x)
        r = torch.linalg.vector_norm(y, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        y.mul_(r).mul_(scale)
        if turn is not None:
            as_complex(y).mul_(turn)
        ctx.save_for_backward(x, scale, turn, r)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):
        x, scale, turn, r = ctx.saved_tensors
        n, g = _copy(x).mul_(r), _copy(dy)
        if turn is not None:
            as_complex(g).mul_(turn.conj())
        gn = g * n
        dscale = gn.flatten(0, -2).sum(0).to(scale.dtype)
        mean = gn @ (scale.to(gn.dtype) / x.shape[-1])
        dx = g.mul_(scale).addcmul_(n, mean[..., None], value=-1).mul_(r)
        return dx.to(x.dtype), dscale, None, None


def _copy(x: Tensor) -> Tensor:
    """Return a contiguous copy that may be overwritten, in float32 at least."""
    return torch.empty(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device).copy_(x)


class SelfAttention(nn.Module):
    """Attention along one axis of tokens (B, T, S, D), with QK-norm, then rotary positions.

    Along time, the heads of all places stand side by side as if they were heads of one token per moment: no
    token is moved.

    Args:
        axis: `space`, each frame by itself, or `time`, each place by itself.
        is_causal: tokens see themselves and what comes before.
    """

    def __init__(self, settings: ModelSettings, axis: Literal["space", "time"], is_causal: bool = False):
        super().__init__()
        self.heads, self.is_causal = settings.heads, is_causal
        self.apart = "(B T) N S H" if axis == "space" else "B (S N) T H"
        self.qkv = nn.Linear(settings.width, 3 * settings.width)
        self.qk_norm = QkNorm(settings.head_size, settings.norm_epsilon) if settings.qk_norm else None
        self.out = nn.Linear(settings.width, settings.width)

    def forward(self, x_BTSD: Tensor, turn: Tensor | None) -> Tensor:
        """`turn`: unit complex numbers, broadcastable to (B, T, S, N, H / 2); None where positions are learned."""
        batch, moments, places, _ = x_BTSD.shape
        qkv = rearrange(self.qkv(x_BTSD), "B T S (three N H) -> B T S three N H", three=3, N=self.heads)
        q, k, v = qkv.unbind(3)
        if self.qk_norm is not None:
            q, k = self.qk_norm(q, k, turn)
        elif turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        q, k, v = (rearrange(part, f"B T S N H -> {self.apart}") for part in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        sizes = {"B": batch, "T": moments, "S": places}
        return self.out(rearrange(out, f"{self.apart} -> B T S (N H)", **sizes))


class CrossAttention(nn.Module):
    """Attention of tokens (B, T, S, D) to the text, and to given frames, of their sample, with QK-norm."""

    def __init__(self, settings: ModelSettings):
        super().__init__()
        self.heads = settings.heads
        self.query = nn.Linear(settings.width, settings.width)
        self.key_value = nn.Linear(settings.width, 2 * settings.width)
        self.qk_norm = QkNorm(settings.head_size, settings.norm_epsilon) if settings.qk_norm else None
        self.out = nn.Linear(settings.width, settings.width)

    def forward(self, x_BTSD: Tensor, seen_BLD: Tensor, seen_mask_BL: Tensor) -> Tensor:
        """`seen_mask_BL` is False at padding, which nothing attends to."""
        moments = x_BTSD.shape[1]
        q = rearrange(self.query(x_BTSD), "B T S (N H) -> B N (T S) H", N=self.heads)
        k, v = rearrange(self.key_value(seen_BLD), "B L (two N H) -> two B N L H", two=2, N=self.heads)
        if self.qk_norm is not None:
            q, k = self.qk_norm(q, k, None)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_mask_BL[:, None, None, :])
        return self.out(rearrange(out, "B N (T S) H -> B T S (N H)", T=moments))
