"""Which tokens the main blocks see: MaskDiT as STIV uses it (paper, section 2.2).

One tube mask per sample: the same places are kept in all frames, so that temporal attention always meets the
same place. Shapes: B batch, T temporal tokens, S spatial tokens, K kept ones, D width.
"""

import torch
from torch import Tensor


def kept_places(order_BS: Tensor, ratio: float) -> Tensor:
    """Return the places kept (B, K), in ascending order: the first of the random `order_BS` (B, S)."""
    keep = order_BS.shape[1] - round(order_BS.shape[1] * ratio)
    return order_BS[:, :keep].sort(dim=1).values


def keep(x_BTSD: Tensor, kept_BK: Tensor) -> Tensor:
    """Return the kept tokens (B, T, K, D)."""
    index = kept_BK[:, None, :, None].expand(-1, x_BTSD.shape[1], -1, x_BTSD.shape[3])
    return x_BTSD.gather(2, index)


def fill(x_BTKD: Tensor, kept_BK: Tensor, places: int, mask_token_D: Tensor) -> Tensor:
    """Return all tokens (B, T, S, D): kept ones in their places, the mask token in the others."""
    batch, frames, _, width = x_BTKD.shape
    full = mask_token_D.to(x_BTKD.dtype).expand(batch, frames, places, width)
    index = kept_BK[:, None, :, None].expand(-1, frames, -1, width)
    return full.scatter(2, index, x_BTKD)


def kept_weight(kept_BK: Tensor, places: int) -> Tensor:
    """Return (B, S): 1 at kept places, 0 at dropped ones."""
    weight = torch.zeros(kept_BK.shape[0], places, device=kept_BK.device)
    return weight.scatter(1, kept_BK, 1.0)
