"""One STIV block: spatial attention, temporal attention, text cross-attention, feed-forward (paper, Fig. 3).

Shapes: B batch, T temporal tokens, S spatial tokens, L text tokens, D width, H head size.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from stiv_model.layers import CrossAttention, FeedForward, Modulation, SelfAttention, modulate, norm
from stiv_model.settings import ModelSettings


class Conditions(NamedTuple):
    """What every block of one forward pass shares."""

    spatial: Modulation
    ffn: Modulation
    text_BLD: Tensor
    text_mask_BL: Tensor


class Positions(NamedTuple):
    """Rotary angles of the tokens that a block sees."""

    spatial: Tensor
    """(S, H / 2), or (B T, 1, S, H / 2) when the samples keep different tokens."""
    temporal: Tensor
    """(T, H / 2)."""


class StivBlock(nn.Module):
    """Self-attentions and feed-forward are normed before and after (sandwich) by a norm without parameters.

    Cross-attention has none but its QK-norm, as in PixArt, and starts silent: a post-norm would add a vector of
    full length per block from the first step on, and bury the picture under it.

    Scale, shift and gate act on spatial attention and feed-forward only (paper, section 2.1). The output of
    temporal attention is multiplied by a learned gain, zero where a video model starts from an image model:
    after the post-norm a zero-initialised projection could not serve, its gradient there is 1/sqrt(epsilon).
    """

    def __init__(self, settings: ModelSettings, is_video: bool):
        super().__init__()
        width, heads, epsilon = settings.width, settings.heads, settings.norm_epsilon
        self.epsilon = epsilon
        self.spatial_attention = SelfAttention(width, heads, epsilon)
        self.temporal_attention = SelfAttention(width, heads, epsilon) if is_video else None
        self.temporal_gain = nn.Parameter(torch.zeros(width)) if is_video else None
        self.cross_attention = CrossAttention(width, heads, epsilon)
        self.ffn = FeedForward(width, settings.ffn_ratio)

    def forward(self, x_BTSD: Tensor, on: Conditions, at: Positions) -> Tensor:
        frames, places = x_BTSD.shape[1:3]
        x = rearrange(x_BTSD, "B T S D -> B (T S) D")

        h = modulate(self.norm(x), on.spatial)
        h = rearrange(h, "B (T S) D -> (B T) S D", T=frames)
        h = rearrange(self.spatial_attention(h, at.spatial), "(B T) S D -> B (T S) D", T=frames)
        x = x + on.spatial.gate * self.norm(h)

        if self.temporal_attention is not None and self.temporal_gain is not None:
            h = rearrange(self.norm(x), "B (T S) D -> (B S) T D", T=frames)
            h = rearrange(self.temporal_attention(h, at.temporal), "(B S) T D -> B (T S) D", S=places)
            x = x + self.temporal_gain * self.norm(h)

        x = x + self.cross_attention(x, on.text_BLD, on.text_mask_BL)
        x = x + on.ffn.gate * self.norm(self.ffn(modulate(self.norm(x), on.ffn)))
        return rearrange(x, "B (T S) D -> B T S D", T=frames)

    def norm(self, x: Tensor) -> Tensor:
        return norm(x, self.epsilon)
