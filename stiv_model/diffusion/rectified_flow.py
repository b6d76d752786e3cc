"""Rectified flow (paper, section 2.1): t = 0 is noise, t = 1 is data. Pure functions; the caller draws.

Shapes: B batch, F latent frames, C channels.
"""

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor


def timesteps(uniform_B: Tensor, density: Literal["uniform", "logit_normal"], shift: float) -> Tensor:
    """Turn uniform draws in (0, 1) into times; logit-normal (m 0, s 1) ranked best for Stable Diffusion 3.

    Args:
        uniform_B: one draw per sample.
        density: of the times before they are shifted.
        shift: as in `shift_times`; 1 is none.
    """
    if density == "uniform":
        return shift_times(uniform_B, shift)
    normal_B = torch.special.ndtri(uniform_B.double())
    return shift_times(torch.sigmoid(normal_B), shift).to(uniform_B.dtype)


def shift_times(time: Tensor, shift: float) -> Tensor:
    """Move times towards noise: u' = r u / (1 + (r - 1) u) for u = 1 - t (the resolution shift of Stable Diffusion 3).

    With r = sqrt(m / n), m values per sample are as noisy as n were without a shift. The same in our time is
    t' = t / (1 + (r - 1) (1 - t)), a form in which 0, 1, and every time at shift 1, stay themselves bit for bit.

    Args:
        time: 0 is noise, 1 is data; any shape.
        shift: the factor r; 1 / r turns it back.
    """
    return time / (1 + (shift - 1) * (1 - time))


def path(data: Tensor, noise: Tensor, time_B: Tensor) -> Tensor:
    """Return x_t = t x_1 + (1 - t) noise."""
    time = rearrange(time_B, "B -> B 1 1 1 1")
    return time * data + (1 - time) * noise


def target(data: Tensor, noise: Tensor) -> Tensor:
    """Return the velocity v = x_1 - noise."""
    return data - noise


def losses(predicted: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Return the mean squared error of each sample (B,) where `weight` (broadcastable to the shape) is not zero.

    The mean is taken over the sample's own weights, so that one with clean frames counts as much as one without.
    A sample without any weight, whose kept frames are all given, has no loss.
    """
    error = (predicted.float() - wanted.float()).square() * weight
    dims = tuple(range(1, error.ndim))
    return error.sum(dims) / weight.expand_as(error).sum(dims).clamp_min(1)
