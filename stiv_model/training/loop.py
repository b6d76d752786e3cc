"""The loop of a training: takes steps, and after each goes back to a checkpoint, validates, saves or stops."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine

from stiv_model import process_exit
from stiv_model.distributed import checkpoints
from stiv_model.distributed.checkpoints import Progress
from stiv_model.distributed.ema import Ema
from stiv_model.latents.dataset import LatentData
from stiv_model.settings import Run
from stiv_model.training import run_files, stop_request
from stiv_model.training.observer import Observe, unnoticed
from stiv_model.training.spike_guard import IN_A_ROW, Guard
from stiv_model.training.steps import Steps
from stiv_model.training.watchdog import Watchdog

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Loop:
    """A run where its newest whole checkpoint stands, on all ranks.

    Args:
        run: what is trained.
        work: its folder; gets checkpoints/.
        data: what it is trained on.
        engine: the model, as `deepspeed_engine.engine` returns it.
        ema: the average of its weights.
        device: of this rank.
        observe: makes what watches the run; `work` gets what that writes.

    Raises:
        ValueError: the checkpoints in `work` are of another run, or all damaged.
        OSError: a new run's checkpoints would not fit on the disk.
    """

    def __init__(
        self,
        run: Run,
        work: Path,
        data: LatentData,
        engine: DeepSpeedEngine,
        ema: Ema,
        device: torch.device,
        observe: Observe,
    ):
        self.run, self.work, self.engine, self.ema, self.device = run, work, engine, ema, device
        self.checkpoints = work / "checkpoints"
        self.checkpoints.mkdir(exist_ok=True)
        self.observer = _unnoticed(observe, run, work, data, device)
        progress = checkpoints.resume(self.checkpoints, run, engine, ema) or Progress(step=0, position=0, loop={})
        self.done = progress.step
        if not self.done:  # as many as will be kept, and one more while it is written
            checkpoints.check_space(self.checkpoints, run, engine, ema, run.training.keep_checkpoints + 1)
        self.guard = Guard(run.training, progress.loop)
        self.steps = Steps(run, engine, data, self.guard, device)
        self.watchdog = Watchdog(run.training.hang_seconds)
        self.saved_at = time.monotonic()
        self._begin()

    def go(self, stop: stop_request.StopRequest) -> bool:
        """Go on to the recipe's last step, or to a request to stop; return whether it was the former.

        Raises:
            FloatingPointError: loss or gradient norm went bad again and again; incidents.jsonl names the clips.
        """
        while self.done < self.run.recipe.steps:
            if self.done + 1 in self.guard.passed_over:
                self._pass_over()
                continue
            self._take()
            if self.guard.bad_in_a_row == IN_A_ROW:
                self._go_back()
                continue
            self._validate()
            if self._save_or_stop(stop):
                break
        self._end()
        return self.done == self.run.recipe.steps

    def _begin(self) -> None:
        """Go on after step `done`."""
        self.steps.begin(self.done)
        _unnoticed(self.observer.start, self.done, self.engine.module)

    def _pass_over(self) -> None:
        self.done += 1
        _unnoticed(self.observer.pass_over, self.done)

    def _take(self) -> None:
        result = self.steps.take(self.done + 1)
        self.watchdog.step()
        if result.skip_reason is None:
            self.ema.update(self.done)
        self.done += 1
        _unnoticed(self.observer.step, self.done, result)

    def _go_back(self) -> None:
        """Go back to the newest checkpoint, to pass over the steps from there to here."""
        bad = self.done
        with self.watchdog.slower():
            back = checkpoints.resume(self.checkpoints, self.run, self.engine, self.ema)
        if back is None:
            raise FloatingPointError(
                f"{IN_A_ROW} bad steps in a row up to step {bad}, and no checkpoint to go back to: see "
                f"{self.work / run_files.INCIDENTS} for the clips, and lower the learning rate or look at the data"
            )
        self.guard.go_back(back.step, bad, back.loop)
        self.done = back.step
        _unnoticed(self.observer.go_back, bad, back.step, self.guard.passed_over)
        self._begin()

    def _validate(self) -> None:
        """Let the averaged weights be looked at, where that is due; nothing of the training changes."""
        if not _unnoticed(self.observer.is_validated, self.done):
            return
        with self.watchdog.slower():
            with self.ema.in_use():
                _unnoticed(self.observer.validate, self.done, self.engine.module)
            dist.barrier()  # the others wait here, where the watchdog is patient

    def _save_or_stop(self, stop: stop_request.StopRequest) -> bool:
        """Save where it is due, which it is on a request to stop; return whether there is one."""
        training, is_last = self.run.training, self.done == self.run.recipe.steps
        is_late = dist.get_rank() == 0 and time.monotonic() - self.saved_at > training.checkpoint_seconds
        is_due, is_stop = stop_request.on_any_rank(
            [is_late or self.done % training.checkpoint_steps == 0, stop.is_made], self.device
        )
        if not is_last and ((is_due and self.guard.bad_in_a_row == 0) or is_stop):
            self._save()
        if not is_last and is_stop and dist.get_rank() == 0:
            process_exit.mark_stopped(self.work, self.done)
            log.info("asked to stop: saved after step %d", self.done)
        return is_stop

    def _save(self) -> None:
        here = Progress(step=self.done, position=self.done * self.run.recipe.batch, loop=self.guard.memory())
        _unnoticed(self.observer.save, self.done)
        with self.watchdog.slower():
            checkpoints.save(self.checkpoints, self.run, self.engine, self.ema, here)
        self.saved_at = time.monotonic()

    def _end(self) -> None:
        self.watchdog.stop()
        self.steps.close()
        log.info("waited %.2f s for data", self.steps.stall_seconds)
        _unnoticed(self.observer.end)


def _unnoticed(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Let the observer do something that the training must not notice."""
    with unnoticed():
        return call(*args, **kwargs)
