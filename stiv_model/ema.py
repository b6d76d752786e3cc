"""The moving average of the weights under ZeRO-3: each rank averages its own shard, without communication."""

from typing import Any

import torch
from deepspeed import DeepSpeedEngine
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor


class Ema:
    """An average of the float32 master weights, kept where they are kept.

    Reads `fp32_partitioned_groups_flat` of DeepSpeed's ZeRO-3 optimizer, an internal of the pinned release.
    """

    def __init__(self, engine: DeepSpeedEngine, decay: float):
        self.engine, self.decay = engine, decay
        self.shards = [flat.detach().clone() for flat in self._flats()]

    def _flats(self) -> list[Tensor]:
        return self.engine.optimizer.fp32_partitioned_groups_flat

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps; the decay rises to its value, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, flat in zip(self.shards, self._flats(), strict=True):
            average.lerp_(flat.detach(), 1 - decay)

    def state(self) -> list[Tensor]:
        return self.shards

    @torch.no_grad()
    def gather(self) -> dict[str, Tensor]:
        """Return the whole averaged weights, on every rank; the live weights are as before afterwards."""
        live = [flat.detach().clone() for flat in self._flats()]
        self._put(self.shards)
        module: Any = self.engine.module
        whole = {name: safe_get_full_fp32_param(p).cpu().clone() for name, p in module.named_parameters()}
        self._put(live)
        return whole

    def _put(self, values: list[Tensor]) -> None:
        for flat, value in zip(self._flats(), values, strict=True):
            flat.data.copy_(value)
