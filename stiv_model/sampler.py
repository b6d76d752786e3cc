"""From noise to latents: Euler steps along the guided velocity, clean frames put back before every step.

Shapes: B batch, F latent frames, C channels, M micro-conditions.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from stiv_model import guidance
from stiv_model.conditions import Text
from stiv_model.image_condition import replace
from stiv_model.settings import SamplerSettings
from stiv_model.transformer import StivTransformer
from stiv_model.velocity import path


class Given(NamedTuple):
    """Clean latent frames that the sample must keep."""

    latents_BFCHW: Tensor
    is_clean_BF: Tensor


@torch.inference_mode()
def sample(
    model: StivTransformer,
    noise_BFCHW: Tensor,
    text: Text,
    null_text: Text,
    micro_BM: Tensor,
    settings: SamplerSettings,
    given: Given | None = None,
    on_step: Callable[[int], None] = lambda step: None,
) -> Tensor:
    """Return latents (B, F, C, H, W); the given frames in them are the given ones, bit for bit.

    The null branch of the guidance is given neither text nor image: there, the given frames are noised like
    the others, as they were in training when the image was dropped.

    Args:
        noise_BFCHW: what sampling starts from.
        null_text: features of the empty caption, for as many samples.
        on_step: called with the number of sampling steps done.
    """
    both = Text(*(torch.cat(pair) for pair in zip(text, null_text, strict=True)))
    micro = torch.cat([micro_BM, micro_BM])
    x = noise_BFCHW
    for step in range(settings.steps):
        time = torch.full((len(x),), step / settings.steps, device=x.device)
        with_image = without_image = x
        if given is not None:
            noised = path(given.latents_BFCHW, noise_BFCHW, time)
            with_image = replace(x, given.latents_BFCHW, given.is_clean_BF)
            without_image = replace(x, noised, given.is_clean_BF)
        velocity = model(torch.cat([with_image, without_image]), torch.cat([time, time]), both, micro)
        conditional, unconditional = velocity.chunk(2)
        guided = guidance.jit(conditional, unconditional, settings.guidance_scale)
        if settings.renormalise:
            guided = guidance.renormalise(guided, conditional)
        x = x + guided / settings.steps
        on_step(step + 1)
    return x if given is None else replace(x, given.latents_BFCHW, given.is_clean_BF)
