"""The loop of a training: takes steps, and after each writes it down, goes back, validates, saves or stops."""

import logging
import time
from pathlib import Path

import torch
import torch.distributed as dist

from stiv_model import process_exit
from stiv_model.distributed import checkpoints
from stiv_model.distributed.checkpoints import Progress
from stiv_model.distributed.ema import Ema
from stiv_model.latents.dataset import LatentData
from stiv_model.monitoring import metrics
from stiv_model.monitoring.metrics import Speed
from stiv_model.monitoring.run_log import RunLog
from stiv_model.network import costs
from stiv_model.settings import Run
from stiv_model.training import stop_request
from stiv_model.training.spike_guard import IN_A_ROW, Guard
from stiv_model.training.steps import Steps
from stiv_model.training.validation import Validation
from stiv_model.training.watchdog import Watchdog

log = logging.getLogger(__name__)


class Loop:
    """A run where its newest whole checkpoint stands, on all ranks.

    Args:
        run: what is trained.
        work: its folder; gets checkpoints/ and what `stiv_model.monitoring.run_log` writes.
        data: what it is trained on.
        shared: the model, as `zero.engine` returns it.
        ema: the average of its weights.
        device: of this rank.
    """

    def __init__(self, run: Run, work: Path, data: LatentData, shared, ema: Ema, device: torch.device):
        self.run, self.work, self.shared, self.ema, self.device = run, work, shared, ema, device
        self.checkpoints = work / "checkpoints"
        self.checkpoints.mkdir(exist_ok=True)
        speed = measure(run, data, device)  # draws numbers: before the random states are restored
        progress = checkpoints.resume(self.checkpoints, run, shared, ema) or Progress(step=0, position=0, loop={})
        self.done = progress.step
        self.guard = Guard(run.training, progress.loop)
        self.steps = Steps(run, shared, data, self.guard, device)
        self.validation = Validation(run, work, data, device) if run.validates else None
        self.book = RunLog(run, work, speed, device) if speed else None
        if self.book:
            self.book.introduce(data, costs.elements(shared.module), self.done)
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
        if self.book:
            self.book.open(self.done)

    def _pass_over(self) -> None:
        self.done += 1
        if self.book:
            self.book.passed_over(self.done)

    def _take(self) -> None:
        taken = self.steps.take(self.done + 1)
        self.watchdog.step()
        if taken.why_not is None:
            self.ema.update(self.done)
        self.done += 1
        if self.book:
            self.book.taken(self.done, taken)

    def _go_back(self) -> None:
        """Go back to the newest checkpoint, to pass over the steps from there to here."""
        bad = self.done
        with self.watchdog.slower():
            back = checkpoints.resume(self.checkpoints, self.run, self.shared, self.ema)
        if back is None:
            raise FloatingPointError(
                f"{IN_A_ROW} bad steps in a row up to step {bad}, and no checkpoint to go back to: see "
                f"{self.work / metrics.INCIDENTS} for the clips, and lower the learning rate or look at the data"
            )
        self.guard.go_back(back.step, bad, back.loop)
        self.done = back.step
        if self.book:
            self.book.went_back(bad, back.step, self.guard.passed_over)
        self._begin()

    def _validate(self) -> None:
        """Make and show the validation videos, where they are due; nothing of the training changes."""
        if self.validation is None or self.done % self.run.training.validation_steps:
            return
        with self.watchdog.slower():
            with self.ema.in_use():
                videos = self.validation.make(self.shared.module)
            if self.book:
                self.book.videos(self.done, videos)
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
        if self.book:
            self.book.flush()
        with self.watchdog.slower():
            checkpoints.save(self.checkpoints, self.run, self.shared, self.ema, here)
        self.saved_at = time.monotonic()

    def _end(self) -> None:
        self.watchdog.stop()
        self.steps.close()
        if self.book:
            log.info("waited %.2f s for data", self.steps.stall_seconds)
            self.book.close()


def measure(run: Run, data: LatentData, device: torch.device) -> Speed | None:
    """Return on the first rank what a sample costs, and what all ranks' matrix products reach; all must call it."""
    training = run.training
    peak = torch.tensor(costs.matmul_peak(device, getattr(torch, training.precision)), device=device)
    dist.all_reduce(peak)
    if dist.get_rank() > 0:
        return None
    _, _, height, width = data.parts["latents"].shape
    shape = costs.Shape(run.recipe.frames, height, width, data.null_text.tokens_BLE.shape[1])
    cost = costs.sample(run.model, training, run.recipe.frames > 1, shape, run.recipe.mask_ratio)
    flops = cost.checkpointed_training_flops if training.activation_checkpointing else cost.training_flops
    return Speed(cost.tokens, flops, peak.item())
