"""Optical flow by RAFT-small (Teed and Deng, arXiv 2003.12039), from a TorchScript file that is named.

The file is of the form of torchvision's: `torch.jit.script(torchvision.models.optical_flow.raft_small(weights=...))`
takes two pictures, float32 (1, 3, H, W) from -1 to 1, red first, with sides that 8 divides, and returns the list of its
estimates, each (1, 2, H, W): pixels to the right, and down; the last is the best. No code but TorchScript's operators
is run from it, and only where its sha256 is the one that is stated.

Shapes: T frames, H height, W width in pixels, C = 3 channels.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 128  # pixels of the shorter side: its coarsest pyramid level has two of them, an eighth and three halvings
_MULTIPLE = 8


class RaftSmall:
    """The network, ready to run.

    Args:
        weights: its TorchScript file.
        sha256: of that file.
        device: cpu or cuda.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has another hash, is no TorchScript, or no network of this form.
    """

    def __init__(self, weights: Path, sha256: str, device: str):
        if not weights.is_file():
            raise FileNotFoundError(f"evaluation.raft_small.weights is {weights}: there is no such file")
        found = hashlib.sha256(weights.read_bytes()).hexdigest()
        if found != sha256:
            raise ValueError(
                f"evaluation.raft_small.sha256 is {sha256}, but {weights} has {found}: name the file meant"
            )
        self.device = torch.device(device)
        try:
            self._network = torch.jit.load(str(weights), map_location=self.device).eval()
            self._run(torch.zeros(2, 3, _LEAST, _LEAST))
        except (RuntimeError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise ValueError(
                f"evaluation.raft_small.weights is {weights}, which is no such network ({why}): name a TorchScript "
                "file of the form of torchvision's raft_small"
            ) from error

    def vectors(self, before_HWC: np.ndarray, after_HWC: np.ndarray) -> np.ndarray:
        """Return the motion of every pixel from one frame, uint8 RGB (H, W, 3), to the next: float32 (H, W, 2).

        A `motion.Estimator`. Smaller pictures are brought to a shorter side of 128 pixels; edges are repeated up to a
        multiple of 8.
        """
        height, width = before_HWC.shape[:2]
        pixels = torch.from_numpy(np.stack([before_HWC, after_HWC])).permute(0, 3, 1, 2).float() / 127.5 - 1
        scale = max(1.0, _LEAST / min(height, width))
        sides = round(height * scale), round(width * scale)
        sized = pixels if scale == 1 else functional.interpolate(pixels, sides, mode="bilinear", antialias=True)
        down, right = (-side % _MULTIPLE for side in sides)
        flow = self._run(functional.pad(sized, (0, right, 0, down), mode="replicate"))[:, :, : sides[0], : sides[1]]
        if scale != 1:
            back = torch.tensor([width / sides[1], height / sides[0]]).view(1, 2, 1, 1)
            flow = functional.interpolate(flow, (height, width), mode="bilinear", antialias=True) * back
        return flow[0].permute(1, 2, 0).numpy()

    @torch.inference_mode()
    def _run(self, pair_TCHW: Tensor) -> Tensor:
        first, second = pair_TCHW.to(self.device).split(1)
        found = self._network(first, second)
        flow = found[-1] if isinstance(found, list | tuple) else found
        wanted = (1, 2, *pair_TCHW.shape[2:])
        if not isinstance(flow, Tensor) or flow.shape != wanted:
            raise ValueError(f"it gives {tuple(getattr(flow, 'shape', ()))}, not {wanted}")
        return flow.float().cpu()
