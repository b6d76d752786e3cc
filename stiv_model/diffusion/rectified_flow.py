"""Rectified flow (paper, section 2.1): t = 0 is noise, t = 1 is data. Pure functions; the caller draws.

Shapes: B batch, F latent frames, C channels, H, W latents.
"""

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor


def sample_timesteps(uniform_B: Tensor, density: Literal["uniform", "logit_normal"], shift: float) -> Tensor:
    """Turn uniform draws in (0, 1) into the timesteps of training (B,), of the same dtype.

    Logit-normal (m 0, s 1) ranked best for Stable Diffusion 3 (arXiv 2403.03206, section 3.1).

    Args:
        uniform_B: one draw per sample.
        density: of the timesteps before they are shifted.
        shift: as in `shift_timesteps`; 1 is none.
    """
    if density == "uniform":
        return shift_timesteps(uniform_B, shift)
    normal_B = torch.special.ndtri(uniform_B.double())
    return shift_timesteps(torch.sigmoid(normal_B), shift).to(uniform_B.dtype)


def shift_timesteps(timestep: Tensor, shift: float) -> Tensor:
    """Move timesteps towards noise: u' = r u / (1 + (r - 1) u) for u = 1 - t.

    The resolution shift of Stable Diffusion 3 (arXiv 2403.03206, section 5.3.2): with r = sqrt(m / n), m values per
    sample are as noisy as n were without a shift. The same in our time is t' = t / (1 + (r - 1) (1 - t)), a form in
    which 0, 1, and every timestep at shift 1, stay themselves bit for bit.

    Args:
        timestep: 0 is noise, 1 is data; any shape, which stays.
        shift: the factor r; 1 / r undoes it.
    """
    return timestep / (1 + (shift - 1) * (1 - timestep))


def interpolate(data: Tensor, noise: Tensor, timestep_B: Tensor) -> Tensor:
    """Return the noised latents x_t = t data + (1 - t) noise, all three (B, F, C, H, W): a straight path."""
    timestep = rearrange(timestep_B, "B -> B 1 1 1 1")
    return timestep * data + (1 - timestep) * noise


def velocity_target(data: Tensor, noise: Tensor) -> Tensor:
    """Return what the model learns to predict, the velocity v = data - noise, of their shape."""
    return data - noise


def velocity_losses(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the mean squared error of each sample's velocity (B,), float32, where `weight` is not zero.

    The mean is taken over the sample's own weights, so that one with clean frames counts as much as one without.
    A sample without any weight, whose kept frames are all given, has no loss.

    Args:
        predicted: velocity (B, F, C, H, W).
        target: as `velocity_target` returned it.
        weight: 1 where a latent bears loss, else 0; broadcastable to the shape of the velocity.
    """
    error = (predicted.float() - target.float()).square() * weight
    dims = tuple(range(1, error.ndim))
    return error.sum(dims) / weight.expand_as(error).sum(dims).clamp_min(1)
