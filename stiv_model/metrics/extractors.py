"""What turns a clip into a row of features: I3D, whose logits make an FVD; or another network, from a named file."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from stiv_model.metrics import i3d

RESIZE = f"bilinear to {i3d.SIDE} x {i3d.SIDE}, corners apart, not smoothed, aspect not kept"
"""How clips are brought to the network's size."""
PUBLISHED = "I3D Kinetics-400 logits"
"""The name of the network whose distances are FVD and KVD."""
_SCRIPTS = (".pt", ".ts")


class Extractor(NamedTuple):
    """A frozen network, and what a figure says of it."""

    name: str
    sha256: str
    """Of its weights."""
    frechet: str
    """What the Fréchet distance of its features is called."""
    kernel: str
    """What the kernel distance is called."""
    features: Callable[[np.ndarray], np.ndarray]
    """Takes uint8 RGB (T, H, W, 3), returns float64 (K,)."""


def published() -> Extractor:
    """Return I3D with its published weights: its distances are FVD and KVD.

    Raises:
        NotInstalledError, ValueError: as `weights.load`.
    """
    return Extractor(PUBLISHED, i3d.WEIGHTS.sha256, "FVD", "KVD", _of(i3d.load()))


def from_file(path: Path) -> Extractor:
    """Return another extractor, whose distances have its file's name.

    Args:
        path: a TorchScript (.pt, .ts) that takes float32 (1, 3, T, 224, 224) from -1 to 1 and returns (1, K); or other
            weights of I3D, named as `i3d.I3D` names them (.safetensors).

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is none of them, or does not open.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: name a TorchScript (.pt, .ts) or weights of I3D (.safetensors)")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 == i3d.WEIGHTS.sha256:
        return published()
    try:
        if path.suffix == ".safetensors":
            network: nn.Module = i3d.I3D()
            network.load_state_dict(load_file(path))
        elif path.suffix in _SCRIPTS:
            network = torch.jit.load(str(path), map_location="cpu")
        else:
            raise ValueError(f"{path}: an extractor is a TorchScript (.pt, .ts) or weights of I3D (.safetensors)")
    except (RuntimeError, SafetensorError) as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"{path} does not open as an extractor ({said}): save it again") from error
    called = f"({path.name})"
    name = f"Frechet distance {called}", f"kernel distance {called}"
    return Extractor(path.name, sha256, *name, _of(network.eval()))


def _of(network: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    def features(video: np.ndarray) -> np.ndarray:
        # one clip at a time: a row does not depend, by its last bits, on which clips stand beside it
        with torch.inference_mode():
            return network(i3d.network_input(video))[0].double().numpy()

    return features
