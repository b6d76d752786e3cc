"""Which tokens the main blocks see: MaskDiT as STIV uses it (paper, section 2.2).

One tube mask per sample: the same spatial tokens are kept in all frames, so that temporal attention always meets the
same position. The ablation that masks time too (paper, Fig. 6a) keeps the same temporal tokens at all positions.
Shapes: B batch, T temporal tokens, S spatial tokens, N tokens along one axis, K kept ones, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class TokenMask(NamedTuple):
    """Indices of the tokens that the main blocks see, in ascending order; None is all of that axis."""

    spatial_BK: Tensor | None
    temporal_BK: Tensor | None


def sample_kept(order_BN: Tensor, mask_ratio: float) -> Tensor | None:
    """Return the indices of the kept tokens (B, K), ascending: the first of a random order. None keeps all.

    Args:
        order_BN: a random permutation of the tokens per sample; the caller draws it.
        mask_ratio: share of the tokens that is dropped, 0 to 1 (paper, section 2.2: 0.5).
    """
    num_kept = order_BN.shape[1] - round(order_BN.shape[1] * mask_ratio)
    return order_BN[:, :num_kept].sort(dim=1).values if num_kept < order_BN.shape[1] else None


def drop_tokens(x_BTSD: Tensor, token_mask: TokenMask) -> Tensor:
    """Return the kept tokens (B, kept T, kept S, D)."""
    for dim, kept_BK in ((2, token_mask.spatial_BK), (1, token_mask.temporal_BK)):
        if kept_BK is not None:
            x_BTSD = x_BTSD.gather(dim, _expand_index(kept_BK, x_BTSD, dim))
    return x_BTSD


def insert_mask_tokens(
    x_BTSD: Tensor, token_mask: TokenMask, num_temporal: int, num_spatial: int, mask_token_D: Tensor
) -> Tensor:
    """Return all tokens (B, T, S, D): the kept ones at their positions, the learned mask token at the others.

    Args:
        x_BTSD: the kept tokens, as `drop_tokens` returned them.
        token_mask: which tokens they are.
        num_temporal: T of the whole sample.
        num_spatial: S of the whole sample.
        mask_token_D: what stands for each dropped token.
    """
    for dim, kept_BK, size in ((1, token_mask.temporal_BK, num_temporal), (2, token_mask.spatial_BK, num_spatial)):
        if kept_BK is not None:
            shape = [*x_BTSD.shape[:dim], size, *x_BTSD.shape[dim + 1 :]]
            full = mask_token_D.to(x_BTSD.dtype).expand(shape)
            x_BTSD = full.scatter(dim, _expand_index(kept_BK, x_BTSD, dim), x_BTSD)
    return x_BTSD


def kept_weight(token_mask: TokenMask, num_temporal: int, num_spatial: int, device: torch.device) -> Tensor:
    """Return (B or 1, T, S), float32: 1 at kept tokens, 0 at dropped ones, which bear no loss (paper, section 2.2)."""
    temporal = _ones_at(token_mask.temporal_BK, num_temporal, device)
    spatial = _ones_at(token_mask.spatial_BK, num_spatial, device)
    return temporal[:, :, None] * spatial[:, None, :]


def _ones_at(kept_BK: Tensor | None, size: int, device: torch.device) -> Tensor:
    if kept_BK is None:
        return torch.ones(1, size, device=device)
    return torch.zeros(kept_BK.shape[0], size, device=device).scatter(1, kept_BK, 1.0)


def _expand_index(kept_BK: Tensor, x_BTSD: Tensor, dim: int) -> Tensor:
    """Return `kept_BK` as an index along `dim` of x, the same for all others."""
    shape = [1] * x_BTSD.ndim
    shape[0], shape[dim] = kept_BK.shape
    size = list(x_BTSD.shape)
    size[dim] = kept_BK.shape[1]
    return kept_BK.view(shape).expand(size)
