"""What a sample is conditioned on.

Shapes: B batch, F latent frames, C channels, L text tokens, E width of the text features.
"""

from typing import NamedTuple

from torch import Tensor

MICRO_CONDITIONS = ("height", "width", "crop_top", "crop_left", "stride_frames", "frames")
"""Of the source video in pixels, of the crop in pixels of the resized picture, and of the sample's frames: as in SDXL,
with stride and number of frames added (paper, section 2.1)."""


class Text(NamedTuple):
    """Features of captions, from the frozen text encoder, one row per sample."""

    tokens_BLE: Tensor
    mask_BL: Tensor
    """True at text, False at padding."""
    pooled_BE: Tensor


class FrameCondition(NamedTuple):
    """Latent frames that are given clean, and that the sample must keep (paper, section 2.3)."""

    latents_BFCHW: Tensor
    """What stands at frames that are not given does not matter."""
    is_clean_BF: Tensor
    """True at the frames that are given."""
