"""Frame replacement (paper, section 2.3): some latent frames are given clean, and bear no loss.

Shapes: B batch, F latent frames, C channels.
"""

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from stiv_model.settings import Mode, Pattern

NullImage = Literal["noised", "zeros"]
"""What stands at given frames where the image is dropped."""


def clean_frame_mask(pattern: Pattern, frames: int) -> Tensor:
    """Return (F,), bool: True at the latent frames that the pattern gives clean.

    `none` is text to video; `first` text and image to video; `first_four` video prediction; `first_and_last`
    interpolation; `every_second` temporal upsampling, where the frames between are made. `views` is multi-view:
    the given view stands in both frames of the first temporal token, so that one view and the paper's six fill
    whole tokens (its seven frames would not, at temporal patch 2; appendix J.3).

    Args:
        pattern: a named set, or the indices.
        frames: latent frames of the sample.

    Raises:
        ValueError: an index is outside the video.
    """
    clean = torch.zeros(frames, dtype=torch.bool)
    match pattern:
        case "none":
            pass
        case "first":
            clean[0] = True
        case "first_four":
            clean[:4] = True
        case "first_and_last":
            clean[[0, -1]] = True
        case "every_second":
            clean[::2] = True
        case "views":
            clean[:2] = True
        case _:
            for index in pattern:
                if not 0 <= index < frames:
                    raise ValueError(f"frame {index} is to be given, but the video has frames 0 to {frames - 1}")
                clean[index] = True
    return clean


def null_image(pattern: Pattern | tuple[Mode, ...]) -> NullImage:
    """Return what stands at given frames when the image is dropped.

    The ordinary noised latent frame, as in a sample without an image; zeros for multi-view (paper, appendix J.3).

    Args:
        pattern: `clean_frames` of a recipe.
    """
    return "zeros" if pattern == "views" else "noised"


def replace_frames(x_BFCHW: Tensor, clean_BFCHW: Tensor, is_clean_BF: Tensor) -> Tensor:
    """Return x (B, F, C, H, W) with `clean_BFCHW` at the frames where `is_clean_BF` is True (paper, section 2.3)."""
    return torch.where(rearrange(is_clean_BF, "B F -> B F 1 1 1"), clean_BFCHW, x_BFCHW)
