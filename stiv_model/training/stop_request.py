"""A request to stop: heard by one rank, answered by all.

SIGTERM, as Slurm, Kubernetes, Prefect and `tasks.operations.processes` send it; SIGUSR1, of which Slurm users have the
habit (`--signal=USR1@300`); or SIGINT, which torchrun passes on after Ctrl-C. Several are one request: whoever passes
it on may have been asked too. Who cannot wait for the checkpoint asks `tasks.operations.processes` twice, or kills.
"""

import signal
from collections.abc import Sequence
from types import FrameType

import torch
import torch.distributed as dist


class StopRequest:
    """Remembers a request from the moment it is made; only the main thread may make one."""

    def __init__(self) -> None:
        self.is_made = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._make)

    def _make(self, number: int, frame: FrameType | None) -> None:
        self.is_made = True


def on_any_rank(questions: Sequence[bool], device: torch.device) -> list[bool]:
    """Return for each question whether any rank says yes: the same answer on all ranks, in one collective."""
    yes = torch.tensor(questions, dtype=torch.float32, device=device)
    dist.all_reduce(yes, dist.ReduceOp.MAX)
    return yes.bool().tolist()
