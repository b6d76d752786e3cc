"""Rotary position embedding (RoPE): two axes in space, one in time (paper, section 2.1; Su et al., arXiv 2104.09864).

Shapes: S spatial tokens, T temporal tokens, H head size; a leading `...` is any batch.
"""

import torch
from torch import Tensor


def angles(positions: Tensor, size: int, base: float) -> Tensor:
    """Return the rotation angles (..., size / 2) of `positions` (...), in radians, float64.

    Pair i of the head turns by position * base^(-2 i / size).

    Args:
        positions: along one axis, in tokens.
        size: channels of a head that this axis rotates; even.
        base: of the frequencies, often called theta.
    """
    frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float64, device=positions.device) / size)
    return positions.double()[..., None] * frequencies


def spatial_angles(rows: int, columns: int, head_size: int, base: float, scale: float, device: torch.device) -> Tensor:
    """Return the angles (S, H / 2) of a grid of tokens, read row by row; half of a head is rotated by each axis.

    Neighbours are `scale` apart. A model that grew to twice the rows and columns with scale 0.5 meets at every
    second position the angles it has learnt: interpolation (paper, section 2.4).
    """
    row, column = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.cat([angles(scale * axis.flatten(), head_size // 2, base) for axis in (row, column)], dim=-1)


def temporal_angles(num_temporal: int, head_size: int, base: float, scale: float, device: torch.device) -> Tensor:
    """Return the angles (T, H / 2) of temporal tokens that are `scale` apart (paper, section 2.4)."""
    return angles(scale * torch.arange(num_temporal, device=device), head_size, base)


def rotary_factors(angles: Tensor) -> Tensor:
    """Return the unit complex numbers (..., H / 2) that rotate by `angles` (..., H / 2), radians."""
    return torch.polar(torch.ones_like(angles), angles)


def as_complex(x: Tensor) -> Tensor:
    """Return a view of `x` (..., H) that takes each neighbouring pair as one complex number (..., H / 2)."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def rotate(x: Tensor, factors: Tensor) -> Tensor:
    """Rotate each neighbouring pair of `x` (..., H), taken as one complex number, by `factors` (..., H / 2).

    Computed in the precision of `factors`; the dtype of `x` stays.
    """
    exact = x.to(factors.real.dtype)
    if torch.compiler.is_compiling():  # the compiler has no complex numbers
        even, odd = exact.unflatten(-1, (-1, 2)).unbind(-1)
        real, imaginary = even * factors.real - odd * factors.imag, even * factors.imag + odd * factors.real
        return torch.stack([real, imaginary], dim=-1).flatten(-2).to(x.dtype)
    return torch.view_as_real(as_complex(exact) * factors).flatten(-2).to(x.dtype)
