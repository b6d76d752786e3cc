"""Between uint8 frames and what a VAE takes. Shapes: T frames, H height, W width, C = 3 colours, RGB."""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor


def to_pixels(frames_THWC: np.ndarray | Tensor) -> Tensor:
    """Turn uint8 frames (T, H, W, 3) into values from -1 to 1, (T, 3, H, W), on the device of a tensor."""
    frames = torch.from_numpy(frames_THWC) if isinstance(frames_THWC, np.ndarray) else frames_THWC
    return rearrange(frames, "T H W C -> T C H W").float() / 127.5 - 1


def to_frames(pixels_TCHW: Tensor) -> np.ndarray:
    """Turn values from -1 to 1, (T, 3, H, W), into uint8 frames (T, H, W, 3)."""
    scaled = ((pixels_TCHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return rearrange(scaled, "T C H W -> T H W C").contiguous().numpy()
