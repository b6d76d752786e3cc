"""All that the first rank tells of a run: tables (`metrics.py`), TensorBoard, validation videos, its log."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stiv_model.latents.dataset import LatentData
from stiv_model.monitoring.metrics import SHOWN, Records, Speed
from stiv_model.monitoring.tensorboard_log import TensorBoardLog
from stiv_model.settings import Run
from stiv_model.training.steps import StepResult

log = logging.getLogger(__name__)


class RunLog:
    """Of one run: `open` it before anything is written down.

    Args:
        work: folder of the run; its folder `shown` gets TensorBoard's files and validation/.
        speed: what a sample is worth.
        device: that decodes videos.
    """

    def __init__(self, run: Run, work: Path, speed: Speed, device: torch.device):
        self.run, self.work, self.speed = run, work, speed
        self.screen = _screen(run, work, device) if run.validates else None

    def introduce(self, data: LatentData, parameters: int, done: int) -> None:
        """Say in the log what begins."""
        recipe = self.run.recipe
        log.info(
            "%s: %.1f million parameters, %d of %d clips, %d samples in %d steps, from step %d",
            *(self.run.recipe_name, parameters / 1e6, len(data.samples), data.given),
            *(recipe.steps * recipe.batch, recipe.steps, done),
        )

    def open(self, done: int) -> None:
        """Go on after step `done`: what was written of later ones is taken back."""
        recipe = self.run.recipe
        self.records = Records(self.work, done, recipe.steps, recipe.batch, self.speed)
        self.board = TensorBoardLog(self.work / SHOWN, done)

    def taken(self, step: int, taken: StepResult) -> None:
        """Write down a step that was tried."""
        self.records.samples(step, (step - 1) * self.run.recipe.batch, taken.clips)
        figures = self.records.step(
            step, taken.loss, taken.gradient_norm, taken.learning_rate, taken.levels, taken.peak_memory_bytes
        )
        self.board.scalars(step, figures)
        if taken.why_not:
            self.records.incident(step, why=taken.why_not, bad=taken.bad_clips, clips=taken.clips)

    def passed_over(self, step: int) -> None:
        """Write down a step that is not tried again."""
        self.records.passed_over(step)

    def went_back(self, step: int, to: int, passed_over: Collection[int]) -> None:
        """Write down a return to a checkpoint; `open` the book there next."""
        self.records.incident(step, back_to=to, passed_over=sorted(passed_over))
        self.close()

    def videos(self, step: int, latents: Mapping[str, Tensor]) -> None:
        """Decode videos and show them."""
        assert self.screen is not None, "this run does not validate"
        for name, frames in self.screen.show(step, latents).items():
            self.board.video(step, f"validation/{name}", frames, self.screen.fps)
        log.info("step %d: %d validation videos in %s", step, len(latents), self.screen.folder)

    def flush(self) -> None:
        """Put all of it on the disk."""
        self.board.flush()

    def close(self) -> None:
        self.records.close()
        self.board.close()


def _screen(run: Run, work: Path, device: torch.device) -> Any:
    from stiv_model.monitoring.video_log import VideoLog  # seconds to import, for those who validate

    return VideoLog(Path(run.latents), work / SHOWN / "validation", run.recipe.frames, device)
