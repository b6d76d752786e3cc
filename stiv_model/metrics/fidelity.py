"""PSNR and SSIM: how much of a video's pixels is that of another, by torchmetrics."""

from typing import TYPE_CHECKING

import numpy as np

from stiv_model.metrics import least

if TYPE_CHECKING:
    import torch

MOST_DB = 100.0
"""PSNR of equal frames, which have no finite one, as in the field's other programs; and of all that is nearer."""


def psnr(video: np.ndarray, truth: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio, dB, mean over frames; 100 at most, of a frame that is the same.

    Args:
        video, truth: uint8 RGB (T, H, W, 3), of one shape.

    Raises:
        ValueError: the shapes differ.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    ratios = peak_signal_noise_ratio(*_frames(video, truth), data_range=255.0, reduction="none", dim=(1, 2, 3))
    return float(ratios.clamp(max=MOST_DB).mean())


def ssim(video: np.ndarray, truth: np.ndarray) -> float:
    """Return the structural similarity of frames, mean over frames: Wang et al. 2004, a Gaussian window of 11 pixels.

    Args:
        video, truth: uint8 RGB (T, H, W, 3), of one shape, 11 pixels high and wide at least.

    Raises:
        ValueError: the shapes differ, or are smaller.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(video.shape[1:3]) < least.SSIM_SIDE:
        raise ValueError(
            f"SSIM looks at {least.SSIM_SIDE} x {least.SSIM_SIDE} pixels at a time, and frames have {video.shape[1:3]}"
        )
    # frames are the batch: with time as a dimension torchmetrics' window would reach over frames
    similarity = structural_similarity_index_measure(*_frames(video, truth), data_range=255.0)
    assert not isinstance(similarity, tuple), "asked for neither a map nor contrasts"
    return float(similarity)


def _frames(video: np.ndarray, truth: np.ndarray) -> "tuple[torch.Tensor, torch.Tensor]":
    import torch

    if video.shape != truth.shape:
        raise ValueError(f"a video of {video.shape} has no truth of {truth.shape}: take as many frames of one size")
    made, real = (torch.from_numpy(np.ascontiguousarray(one)).permute(0, 3, 1, 2).float() for one in (video, truth))
    return made, real
