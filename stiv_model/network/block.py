"""One STIV block: spatial attention, temporal attention, text cross-attention, feed-forward (paper, Fig. 3).

The image is not in here: `training/loss.py` and `diffusion/sampler.py` put it in the place of noised frames.

Shapes: B batch, T temporal tokens, S spatial tokens, L tokens of the context of cross-attention, D width, H head size.
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
    """What every block of one forward pass is conditioned on."""

    singleton_BD: Tensor
    """Timestep, micro-conditions and pooled text, summed: one vector per sample."""
    modulation: tuple[Modulation, ...] | None
    """Of spatial attention, feed-forward, and temporal attention where it has one; None if each block has its own."""
    context_BLD: Tensor
    """Keys and values of cross-attention come from it: text tokens, and clean frames where the model sees them so."""
    context_mask_BL: Tensor
    """False at padding."""


class Positions(NamedTuple):
    """Rotary factors of the tokens that a block sees, as unit complex numbers; None where positions are learned."""

    spatial: Tensor | None
    """(1 or B, 1, S, 1, H / 2)."""
    temporal: Tensor | None
    """(1 or B, T, 1, 1, H / 2)."""


class Modulations(nn.Module):
    """AdaLN: shift, scale and gate of the modulated sub-layers from the singleton condition (paper, section 2.1)."""

    def __init__(self, settings: ModelSettings, is_video: bool):
        super().__init__()
        self.sublayers = 3 if is_video and settings.temporal_modulation else 2
        self.linear = nn.Linear(settings.width, 3 * self.sublayers * settings.width)

    def forward(self, singleton_BD: Tensor) -> tuple[Modulation, ...]:
        """Return the modulations, (B, 1, 1, D) each, of spatial attention, feed-forward, and time if it has one."""
        parts = self.linear(F.silu(singleton_BD))[:, None, None].chunk(3 * self.sublayers, dim=-1)
        return tuple(Modulation(*parts[i : i + 3]) for i in range(0, len(parts), 3))


class StivBlock(nn.Module):
    """Self-attentions and feed-forward are normed before and after (sandwich) by a norm without parameters.

    Scale, shift and gate act on spatial attention and feed-forward only (paper, section 2.1). Cross-attention has
    no norm but its QK-norm, as in PixArt, and starts silent. The output of temporal attention is multiplied by a
    learned gain, which starts at `settings.temporal_gain`. At zero a video model starts where its image model stands:
    after the post-norm a zero-initialised projection could not serve, its gradient there is 1/sqrt(epsilon). Where
    temporal attention is modulated too (the paper's ablation, Fig. 6a), its gate starts at zero and serves instead.

    Args:
        settings: sizes, and the rows of the paper's ablations.
        is_video: with temporal attention.
    """

    def __init__(self, settings: ModelSettings, is_video: bool):
        super().__init__()
        self.epsilon = settings.norm_epsilon
        self.sequence_group: ProcessGroup | None = None
        self.is_sandwich, self.norms_cross = settings.sandwich_norm, settings.cross_attention_norm
        self.modulation = Modulations(settings, is_video) if settings.adaln == "per_layer" else None
        self.spatial_attention = SelfAttention(settings, "spatial")
        self.temporal_attention = SelfAttention(settings, "temporal", settings.causal_time) if is_video else None
        has_gain = is_video and not settings.temporal_modulation
        self.temporal_gain = nn.Parameter(torch.zeros(settings.width)) if has_gain else None
        self.cross_attention = CrossAttention(settings)
        self.ffn = FeedForward(settings.width, settings.ffn_ratio)

    def forward(self, x_BTSD: Tensor, conditions: Conditions, positions: Positions) -> Tensor:
        """Return the tokens after the block (B, T, S, D).

        Args:
            x_BTSD: the tokens that this block sees; on one rank of a shared sequence, its share of the temporal ones.
            conditions: what all blocks are conditioned on.
            positions: rotary factors of these tokens in space, and of all temporal tokens in time.
        """
        modulation = conditions.modulation if self.modulation is None else self.modulation(conditions.singleton_BD)
        assert modulation is not None, "either the model or the block makes the modulation"
        spatial, ffn, *temporal = modulation
        x = x_BTSD

        h = self.spatial_attention(modulate(self.norm(x), spatial), positions.spatial)
        x = torch.addcmul(x, spatial.gate, self.norm_out(h))

        if self.temporal_attention is not None:
            h = modulate(self.norm(x), temporal[0]) if temporal else self.norm(x)
            gate = temporal[0].gate if temporal else self.temporal_gain
            assert gate is not None, "temporal attention has a gate or a gain"
            h = self.temporal_attention(sequence_parallel.shard_spatial(h, self.sequence_group), positions.temporal)
            h = sequence_parallel.shard_temporal(h, x.shape[2], self.sequence_group)
            x = torch.addcmul(x, gate, self.norm_out(h))

        context_BLD, context_mask_BL = conditions.context_BLD, conditions.context_mask_BL
        if self.norms_cross:
            x = x + self.norm(self.cross_attention(self.norm(x), context_BLD, context_mask_BL))
        else:
            x = x + self.cross_attention(x, context_BLD, context_mask_BL)

        h = self.ffn(modulate(self.norm(x), ffn))
        return torch.addcmul(x, ffn.gate, self.norm_out(h))

    def norm(self, x: Tensor) -> Tensor:
        """Return x (..., D) normed, before a sub-layer."""
        return norm(x, self.epsilon)

    def norm_out(self, x: Tensor) -> Tensor:
        """Return x (..., D) normed after a sub-layer, or as it is in a model without sandwich norm."""
        return self.norm(x) if self.is_sandwich else x
