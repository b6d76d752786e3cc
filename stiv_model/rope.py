"""Rotary positions: two axes in space, one in time (paper, section 2.1).

Shapes: S spatial tokens, T temporal tokens, H head size; a leading `...` is any batch.
"""

import torch
from einops import rearrange
from torch import Tensor


def angles(positions: Tensor, size: int, base: float) -> Tensor:
    """Return the rotation angles (..., size / 2) of `positions` (...), in radians."""
    frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float32, device=positions.device) / size)
    return positions.float()[..., None] * frequencies


def spatial_angles(rows: int, columns: int, size: int, base: float, device: torch.device) -> Tensor:
    """Return the angles (S, H / 2) of a grid, read row by row; half of a head turns with each axis."""
    row, column = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.cat([angles(axis.flatten(), size // 2, base) for axis in (row, column)], dim=-1)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate each neighbouring pair of `x` (..., H) by the angles `turn` (..., H / 2), broadcast over heads."""
    even, odd = rearrange(x, "... (H two) -> two ... H", two=2)
    cosine, sine = turn.cos().to(x.dtype), turn.sin().to(x.dtype)
    turned = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return rearrange(turned, "... H two -> ... (H two)")
