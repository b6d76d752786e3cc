"""Rotary positions: two axes in space, one in time (paper, section 2.1).

Shapes: S spatial tokens, T temporal tokens, H head size; a leading `...` is any batch.
"""

import torch
from torch import Tensor


def angles(positions: Tensor, size: int, base: float) -> Tensor:
    """Return the rotation angles (..., size / 2) of `positions` (...), in radians."""
    frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float64, device=positions.device) / size)
    return positions.double()[..., None] * frequencies


def spatial_angles(rows: int, columns: int, size: int, base: float, scale: float, device: torch.device) -> Tensor:
    """Return the angles (S, H / 2) of a grid, read row by row; half of a head turns with each axis.

    Neighbours are `scale` apart. A model that grew to twice the rows and columns with scale 0.5 meets at every
    second place the angles it has learnt: interpolation (paper, section 2.4).
    """
    row, column = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.cat([angles(scale * axis.flatten(), size // 2, base) for axis in (row, column)], dim=-1)


def temporal_angles(moments: int, size: int, base: float, scale: float, device: torch.device) -> Tensor:
    """Return the angles (T, H / 2) of moments that are `scale` apart."""
    return angles(scale * torch.arange(moments, device=device), size, base)


def turns(angles: Tensor) -> Tensor:
    """Return unit complex numbers (..., H / 2) that turn by the angles."""
    return torch.polar(torch.ones_like(angles), angles)


def as_complex(x: Tensor) -> Tensor:
    """Return a view of `x` (..., H) that takes each neighbouring pair as one complex number (..., H / 2)."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate each neighbouring pair of `x` (..., H), taken as one complex number, by `turn` (..., H / 2).

    Computed in the precision of `turn`; the dtype of `x` stays.
    """
    exact = x.to(turn.real.dtype)
    if torch.compiler.is_compiling():  # the compiler has no complex numbers
        even, odd = exact.unflatten(-1, (-1, 2)).unbind(-1)
        real, imaginary = even * turn.real - odd * turn.imag, even * turn.imag + odd * turn.real
        return torch.stack([real, imaginary], dim=-1).flatten(-2).to(x.dtype)
    return torch.view_as_real(as_complex(exact) * turn).flatten(-2).to(x.dtype)
