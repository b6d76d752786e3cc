"""The moving average of the weights under ZeRO: each rank averages its own partitions, without communication."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from torch import Tensor

from stiv_model.distributed import partitions

_EXCHANGED_AT_ONCE = 2**24  # elements: a copy of a whole partition may be more than there is room for


class Ema:
    """An average of the float32 master weights, kept where they are kept, or in host memory if they are on NVMe.

    Args:
        engine: whose weights are averaged, from their present values on.
        decay: of the average per step, once it is warmed up.
    """

    def __init__(self, engine: DeepSpeedEngine, decay: float):
        self.engine, self.decay = engine, decay
        self.averages = [master.detach().clone() for master in partitions.each(engine)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps; the decay rises to its value, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, master in zip(self.averages, partitions.each(self.engine), strict=True):
            average.lerp_(master.detach(), 1 - decay)

    def state(self) -> list[Tensor]:
        """Return the averages themselves, one (N), float32, for each partition of this rank."""
        return self.averages

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the model compute with the average; the live weights come back bit for bit. On all ranks together."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        """Swap average and live weights: twice is nothing."""
        for (_, master), average in zip(partitions.visit(self.engine, writes=True), self.averages, strict=True):
            for one, other in zip(
                average.split(_EXCHANGED_AT_ONCE), master.data.split(_EXCHANGED_AT_ONCE), strict=True
            ):
                kept = one.clone()
                one.copy_(other)
                other.copy_(kept)

    @torch.no_grad()
    def each(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each averaged parameter by name, in its own shape, float32: whole on rank 0, meaningless on the others.

        All ranks must go through all of them. Only one is whole at a time: the next takes its memory.
        """
        rows = partitions.pieces(self.engine, dist.get_rank())
        largest = max(piece.size for row in rows for piece in row)
        memory = torch.empty(largest, device=self.engine.device)  # offloaded partitions: NCCL needs the GPU
        for row, average in zip(rows, self.averages, strict=True):
            for piece in row:
                whole = memory[: piece.size].zero_()
                if not partitions.is_copy(self.engine):
                    whole[piece.start : piece.start + piece.length] = piece.of(average).to(whole.device)
                dist.reduce(whole, 0)
                yield piece.name, whole.view(piece.shape)
