"""One STIV block: spatial attention, temporal attention, text cross-attention, feed-forward (paper, Fig. 3).

Shapes: B batch, T temporal tokens, S spatial tokens, L keys of cross-attention, D width, H head size.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from stiv_model.network import sequence_parallel
from stiv_model.network.layers import CrossAttention, FeedForward, Modulation, SelfAttention, modulate, norm
from stiv_model.settings import ModelSettings


class Conditions(NamedTuple):
    """What every block of one forward pass shares."""

    singleton_BD: Tensor
    modulation: tuple[Modulation, ...] | None
    """Of spatial attention, feed-forward, and temporal attention where it has one; None if each block has its own."""
    seen_BLD: Tensor
    """What cross-attention sees: text tokens, and those of given frames where they are shown that way."""
    seen_mask_BL: Tensor


class Positions(NamedTuple):
    """Turns of the tokens that a block sees, as unit complex numbers; None where positions are learned."""

    spatial: Tensor | None
    """(1 or B, 1, S, 1, H / 2)."""
    temporal: Tensor | None
    """(1 or B, T, 1, 1, H / 2)."""


class Modulations(nn.Module):
    """AdaLN: shift, scale and gate of the modulated sub-layers from the singleton condition (B, D)."""

    def __init__(self, settings: ModelSettings, is_video: bool):
        super().__init__()
        self.sublayers = 3 if is_video and settings.temporal_modulation else 2
        self.linear = nn.Linear(settings.width, 3 * self.sublayers * settings.width)

    def forward(self, singleton_BD: Tensor) -> tuple[Modulation, ...]:
        parts = self.linear(F.silu(singleton_BD))[:, None, None].chunk(3 * self.sublayers, dim=-1)
        return tuple(Modulation(*parts[i : i + 3]) for i in range(0, len(parts), 3))


class StivBlock(nn.Module):
    """Self-attentions and feed-forward are normed before and after (sandwich) by a norm without parameters.

    Scale, shift and gate act on spatial attention and feed-forward only (paper, section 2.1). Cross-attention has
    no norm but its QK-norm, as in PixArt, and starts silent. The output of temporal attention is multiplied by a
    learned gain, zero where a video model starts from an image model: after the post-norm a zero-initialised
    projection could not serve, its gradient there is 1/sqrt(epsilon). Where temporal attention is modulated too
    (the paper's ablation), its gate starts at zero and serves instead.
    """

    def __init__(self, settings: ModelSettings, is_video: bool):
        super().__init__()
        self.epsilon = settings.norm_epsilon
        self.sequence: ProcessGroup | None = None
        self.is_sandwich, self.norms_cross = settings.sandwich_norm, settings.cross_attention_norm
        self.modulation = Modulations(settings, is_video) if settings.adaln == "per_layer" else None
        self.spatial_attention = SelfAttention(settings, "space")
        self.temporal_attention = SelfAttention(settings, "time", settings.causal_time) if is_video else None
        has_gain = is_video and not settings.temporal_modulation
        self.temporal_gain = nn.Parameter(torch.zeros(settings.width)) if has_gain else None
        self.cross_attention = CrossAttention(settings)
        self.ffn = FeedForward(settings.width, settings.ffn_ratio)

    def forward(self, x_BTSD: Tensor, on: Conditions, at: Positions) -> Tensor:
        modulation = on.modulation if self.modulation is None else self.modulation(on.singleton_BD)
        assert modulation is not None, "either the model or the block makes the modulation"
        spatial, ffn, *temporal = modulation
        x = x_BTSD

        h = self.spatial_attention(modulate(self.norm(x), spatial), at.spatial)
        x = torch.addcmul(x, spatial.gate, self.norm_out(h))

        if self.temporal_attention is not None:
            h = modulate(self.norm(x), temporal[0]) if temporal else self.norm(x)
            gate = temporal[0].gate if temporal else self.temporal_gain
            assert gate is not None, "temporal attention has a gate or a gain"
            h = self.temporal_attention(sequence_parallel.by_places(h, self.sequence), at.temporal)
            h = sequence_parallel.by_moments(h, x.shape[2], self.sequence)
            x = torch.addcmul(x, gate, self.norm_out(h))

        if self.norms_cross:
            x = x + self.norm(self.cross_attention(self.norm(x), on.seen_BLD, on.seen_mask_BL))
        else:
            x = x + self.cross_attention(x, on.seen_BLD, on.seen_mask_BL)

        h = self.ffn(modulate(self.norm(x), ffn))
        return torch.addcmul(x, ffn.gate, self.norm_out(h))

    def norm(self, x: Tensor) -> Tensor:
        return norm(x, self.epsilon)

    def norm_out(self, x: Tensor) -> Tensor:
        return self.norm(x) if self.is_sandwich else x
