"""Tiny networks of the forms that evaluation takes from files, since the trained ones are nobody's to carry."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn


class _CentreFlow(nn.Module):
    """All vectors are the way of the light's centre of mass from one picture to the next, in the last of two lists."""

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        assert first.shape[2] % 8 == 0 and first.shape[3] % 8 == 0 and first.shape[2] >= 128
        way = self._centre(second) - self._centre(first)
        flow = way.view(1, 2, 1, 1).expand(1, 2, first.shape[2], first.shape[3])
        return [0 * flow, flow]

    def _centre(self, picture: Tensor) -> Tensor:
        light = (picture + 1).sum(dim=1)[0]
        rows = torch.arange(light.shape[0], dtype=torch.float32)[:, None]
        columns = torch.arange(light.shape[1], dtype=torch.float32)[None]
        whole = light.sum().clamp_min(1e-6)
        return torch.stack([(light * columns).sum() / whole, (light * rows).sum() / whole])


class _Coarse(nn.Module):
    """Gives vectors of every eighth pixel only."""

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        return [first[:, :2, ::8, ::8]]


def write_flow_network(path: Path, is_coarse: bool = False) -> str:
    """Write a TorchScript file of the form of RAFT-small; return its sha256."""
    torch.jit.script(_Coarse() if is_coarse else _CentreFlow()).save(str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()
