"""What watches a training, as the training knows it: `stiv_model.monitoring.monitor` is the one that there is.

The law: who watches can never change a weight. So nothing here returns anything that the loop computes with, and every
call is made inside `unnoticed`.
"""

import math
import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from stiv_model.latents.dataset import LatentData
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import Run


@dataclass
class StepResult:
    """What came of one step, the same on all ranks but for the clips and the memory."""

    loss: float = math.nan
    """Mean over all samples of the step."""
    gradient_norm: float = math.nan
    """Before clipping."""
    learning_rate: float = math.nan
    level_losses: list[float] = field(default_factory=list)
    """Mean loss per noise level, NaN where no sample had it."""
    skip_reason: str | None = None
    """Why the weights were not changed; None where they were."""
    clips: list[str] = field(default_factory=list)
    """Of all ranks, in the order of the run; known to the first rank only."""
    bad_clips: list[str] = field(default_factory=list)
    """Those whose own loss is not finite."""
    peak_memory_bytes: int = 0
    """Of this rank, up to now."""


class Observer(Protocol):
    """Watches a training from every rank; every call is made on all ranks, at the same point of the training.

    Steps are counted from 1. What a call does with other ranks, it must do on all of them.
    """

    def start(self, done: int, model: StivTransformer) -> None:
        """Hear that the run begins or goes on after step `done`; later steps of which it has heard will come again."""

    def step(self, step: int, result: StepResult) -> None:
        """Hear of a step that was tried."""

    def pass_over(self, step: int) -> None:
        """Hear of a step that is not tried again, because it led to a return."""

    def go_back(self, step: int, to: int, passed_over: Collection[int]) -> None:
        """Hear, before the next `start`, of a return after step `step` to the checkpoint of step `to`.

        Args:
            passed_over: all steps that will not be tried again.
        """

    def is_validated(self, step: int) -> bool:
        """Say whether `validate` shall be called after this step; the same on all ranks."""

    def validate(self, step: int, model: StivTransformer) -> None:
        """Look at the model after a step, while it computes with the EMA weights."""

    def save(self, step: int) -> None:
        """Hear that a checkpoint of this step will be written: what was noted up to here must not be lost."""

    def end(self) -> None:
        """Hear that the last step is done, or that the run stops on request."""


Observe = Callable[[Run, Path, LatentData, torch.device], Observer]
"""Makes the observer of a run, on all ranks together: of this run, its folder, its data, on the device of this rank."""


@contextmanager
def unnoticed() -> Iterator[None]:
    """Let a training not notice what is done here: no gradients, and the random states as they were found."""
    python, numpy = random.getstate(), np.random.get_state()
    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(gpus), torch.no_grad():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
