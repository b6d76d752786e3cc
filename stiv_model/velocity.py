"""Rectified flow (paper, section 2.1): t = 0 is noise, t = 1 is data. Pure functions; the caller draws.

Shapes: B batch, F latent frames, C channels.
"""

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor


def timesteps(uniform_B: Tensor, density: Literal["uniform", "logit_normal"]) -> Tensor:
    """Turn uniform draws in (0, 1) into times; logit-normal (m 0, s 1) ranked best for Stable Diffusion 3."""
    if density == "uniform":
        return uniform_B
    return torch.sigmoid(torch.special.ndtri(uniform_B.double())).to(uniform_B.dtype)


def path(data: Tensor, noise: Tensor, time_B: Tensor) -> Tensor:
    """Return x_t = t x_1 + (1 - t) noise."""
    time = rearrange(time_B, "B -> B 1 1 1 1")
    return time * data + (1 - time) * noise


def target(data: Tensor, noise: Tensor) -> Tensor:
    """Return the velocity v = x_1 - noise."""
    return data - noise


def loss(predicted: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Return the mean squared error where `weight` (broadcastable to the shape) is not zero.

    The mean of each sample is taken over its own weights, so that a sample with clean frames counts as much
    as one without.
    """
    error = (predicted.float() - wanted.float()).square() * weight
    dims = tuple(range(1, error.ndim))
    return (error.sum(dims) / weight.expand_as(error).sum(dims)).mean()
