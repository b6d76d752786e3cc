"""Frame replacement (paper, section 2.3): some latent frames are given clean, and bear no loss.

Shapes: B batch, F latent frames, C channels.
"""

import torch
from einops import rearrange
from torch import Tensor

from stiv_model.settings import Pattern


def clean_frames(pattern: Pattern, frames: int) -> Tensor:
    """Return (F,): True at the frames that the pattern gives clean.

    `none` is text to video; `first` text and image to video; `every_second` temporal upsampling, where the
    frames between are made.
    """
    clean = torch.zeros(frames, dtype=torch.bool)
    if pattern == "first":
        clean[0] = True
    elif pattern == "every_second":
        clean[::2] = True
    return clean


def replace(x_BFCHW: Tensor, clean_BFCHW: Tensor, is_clean_BF: Tensor) -> Tensor:
    """Put the clean latent frames in their places."""
    return torch.where(rearrange(is_clean_BF, "B F -> B F 1 1 1"), clean_BFCHW, x_BFCHW)
