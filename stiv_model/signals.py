"""A request to stop (SIGTERM, as Slurm, Kubernetes and torchrun send it): heard by one rank, answered by all."""

import signal
from collections.abc import Sequence
from types import FrameType

import torch
import torch.distributed as dist

EXIT_CODE = 75
"""Of a rank that stopped on request, its work saved: EX_TEMPFAIL of sysexits.h, "try again later"."""


class StopRequest:
    """Remembers SIGTERM from the moment it is made; only the main thread may make one."""

    def __init__(self) -> None:
        self.is_made = False
        signal.signal(signal.SIGTERM, self._make)

    def _make(self, number: int, frame: FrameType | None) -> None:
        self.is_made = True


def on_any_rank(questions: Sequence[bool], device: torch.device) -> list[bool]:
    """Return for each question whether any rank says yes: the same answer on all ranks, in one collective."""
    yes = torch.tensor(questions, dtype=torch.float32, device=device)
    dist.all_reduce(yes, dist.ReduceOp.MAX)
    return yes.bool().tolist()
