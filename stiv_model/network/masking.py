"""Which tokens the main blocks see: MaskDiT as STIV uses it (paper, section 2.2).

One tube mask per sample: the same places are kept in all frames, so that temporal attention always meets the
same place. The ablation that masks time too (paper, Fig. 6a) keeps the same moments in all places.
Shapes: B batch, T temporal tokens, S spatial tokens, K kept ones, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class TokenMask(NamedTuple):
    """What the main blocks see, ascending; None is all."""

    places_BK: Tensor | None
    moments_BK: Tensor | None


def choose(order_BS: Tensor, ratio: float) -> Tensor | None:
    """Return the positions kept (B, K), in ascending order: the first of the random `order_BS`. None keeps all."""
    keep = order_BS.shape[1] - round(order_BS.shape[1] * ratio)
    return order_BS[:, :keep].sort(dim=1).values if keep < order_BS.shape[1] else None


def keep(x_BTSD: Tensor, kept: TokenMask) -> Tensor:
    """Return the kept tokens (B, kept moments, kept places, D)."""
    for dim, chosen_BK in ((2, kept.places_BK), (1, kept.moments_BK)):
        if chosen_BK is not None:
            x_BTSD = x_BTSD.gather(dim, _index(chosen_BK, x_BTSD, dim))
    return x_BTSD


def fill(x_BTSD: Tensor, kept: TokenMask, moments: int, places: int, mask_token_D: Tensor) -> Tensor:
    """Return all tokens (B, moments, places, D): kept ones where they were, the mask token elsewhere."""
    for dim, chosen_BK, size in ((1, kept.moments_BK, moments), (2, kept.places_BK, places)):
        if chosen_BK is not None:
            shape = [*x_BTSD.shape[:dim], size, *x_BTSD.shape[dim + 1 :]]
            full = mask_token_D.to(x_BTSD.dtype).expand(shape)
            x_BTSD = full.scatter(dim, _index(chosen_BK, x_BTSD, dim), x_BTSD)
    return x_BTSD


def weight(kept: TokenMask, moments: int, places: int, device: torch.device) -> Tensor:
    """Return (B or 1, moments, places), broadcastable: 1 at kept tokens, 0 at dropped ones."""
    in_time = _ones(kept.moments_BK, moments, device)
    in_space = _ones(kept.places_BK, places, device)
    return in_time[:, :, None] * in_space[:, None, :]


def _ones(chosen_BK: Tensor | None, size: int, device: torch.device) -> Tensor:
    if chosen_BK is None:
        return torch.ones(1, size, device=device)
    return torch.zeros(chosen_BK.shape[0], size, device=device).scatter(1, chosen_BK, 1.0)


def _index(chosen_BK: Tensor, x_BTSD: Tensor, dim: int) -> Tensor:
    """Return `chosen_BK` as an index along `dim` of x, the same for all others."""
    shape = [1] * x_BTSD.ndim
    shape[0], shape[dim] = chosen_BK.shape
    size = list(x_BTSD.shape)
    size[dim] = chosen_BK.shape[1]
    return chosen_BK.view(shape).expand(size)
