"""What a sample is conditioned on.

Shapes: B batch, F latent frames, C channels, L text tokens, E width of the text features.
"""

from typing import NamedTuple

from torch import Tensor

MICRO_CONDITIONS = ("height", "width", "crop_top", "crop_left", "stride_frames", "frames")
"""Of the source video in pixels, of the crop in pixels of the resized picture, and of the sample's frames."""


class Text(NamedTuple):
    """Features of captions, from the frozen text encoder."""

    tokens_BLE: Tensor
    mask_BL: Tensor
    """True at text, False at padding."""
    pooled_BE: Tensor


class FrameCondition(NamedTuple):
    """Clean latent frames that the sample must keep."""

    latents_BFCHW: Tensor
    """What stands at frames that are not given does not matter."""
    is_clean_BF: Tensor
