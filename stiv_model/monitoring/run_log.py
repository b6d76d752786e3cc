"""What the first rank writes down of a run: tables (`metrics.py`), figures for trackers, validation videos, its log."""

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stiv_model.distributed.zero_sizes import elements
from stiv_model.latents.dataset import LatentData
from stiv_model.monitoring import validation_files
from stiv_model.monitoring.metrics import Records, Speed
from stiv_model.monitoring.trackers import Tracker, Trackers
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import Run
from stiv_model.training.observer import StepResult
from stiv_model.training.run_files import SHOWN

log = logging.getLogger(__name__)


class RunLog:
    """The tables, trackers and videos of one run: `open` it before anything is written down.

    Args:
        run: what is trained.
        work: folder of the run; its folder `shown` gets trackers' files and validation/.
        speed: what a sample is worth.
        device: that decodes videos.
    """

    def __init__(self, run: Run, work: Path, speed: Speed, device: torch.device):
        self.run, self.work, self.speed = run, work, speed
        self.trackers = Trackers(run.monitoring.trackers)
        self.video_log = _video_log(run, work, device) if run.validates else None

    def introduce(self, data: LatentData, model: StivTransformer, done: int) -> None:
        """Say in the log what begins."""
        recipe = self.run.recipe
        log.info(
            "%s: %.1f million parameters, %d of %d clips, %d samples in %d steps, from step %d",
            *(self.run.recipe_name, elements(model) / 1e6, len(data.samples), data.given),
            *(recipe.steps * recipe.batch, recipe.steps, done),
        )

    def open(self, done: int) -> None:
        """Go on after step `done`: what was written of later ones is taken back."""
        recipe = self.run.recipe
        self.records = Records(self.work, done, recipe.steps, recipe.batch, self.speed)
        self.trackers.tell(lambda tracker: tracker.start(self.run, self.work / SHOWN, done))

    def step(self, step: int, result: StepResult) -> None:
        """Write down a step that was tried."""
        self.records.samples(step, (step - 1) * self.run.recipe.batch, result.clips)
        figures = self.records.step(
            step, result.loss, result.gradient_norm, result.learning_rate, result.level_losses, result.peak_memory_bytes
        )
        self.trackers.tell(lambda tracker: tracker.log(step, figures))
        if result.skip_reason:
            self.records.incident(step, why=result.skip_reason, bad=result.bad_clips, clips=result.clips)

    def pass_over(self, step: int) -> None:
        """Write down a step that is not tried again."""
        self.records.pass_over(step)

    def go_back(self, step: int, to: int, passed_over: Collection[int]) -> None:
        """Write down a return to a checkpoint; `open` it there next."""
        self.records.incident(step, back_to=to, passed_over=sorted(passed_over))
        self.close()

    def videos(self, step: int, latents: Mapping[str, Tensor]) -> None:
        """Decode videos, the latents (F, C, H, W) of each by its name, and show them."""
        assert self.video_log is not None, "this run does not validate"
        videos, figures = self.video_log.show(step, latents)
        for name, frames in videos.items():
            self.trackers.tell(_shows(step, f"validation/{name}", frames, self.video_log.fps))
        if figures:
            self.trackers.tell(lambda tracker: tracker.log(step, figures))
            log.info("step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
        log.info("step %d: %d validation videos in %s", step, len(latents), self.video_log.folder)

    def flush(self) -> None:
        """Put all of it on the disk."""
        self.records.sync()
        self.trackers.tell(lambda tracker: tracker.flush())

    def close(self) -> None:
        """End tables and trackers."""
        self.records.close()
        self.trackers.tell(lambda tracker: tracker.end())


def _shows(step: int, name: str, frames_THWC: np.ndarray, fps: float) -> Callable[[Tracker], None]:
    return lambda tracker: tracker.video(step, name, frames_THWC, fps)


def _video_log(run: Run, work: Path, device: torch.device) -> Any:
    from stiv_model.monitoring.video_log import VideoLog  # seconds to import, for those who validate

    folder = work / SHOWN / validation_files.FOLDER
    prompts, metrics = run.training.validation_prompts, run.monitoring.validation_metrics
    return VideoLog(Path(run.latents), folder, prompts, metrics, run.recipe.frames, device)
