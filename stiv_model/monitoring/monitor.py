"""What watches a training: its tables, what trackers show, its validation videos, the lines of its log.

`stiv_model.training.train` hands `Monitor` to the loop, which knows it as a `stiv_model.training.observer.Observer`.
"""

from collections.abc import Collection
from pathlib import Path

import torch
import torch.distributed as dist

from stiv_model.latents.dataset import LatentData
from stiv_model.monitoring import costs
from stiv_model.monitoring.metrics import Speed
from stiv_model.monitoring.run_log import RunLog
from stiv_model.monitoring.validation import Validation
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import Run
from stiv_model.training.observer import StepResult


class Monitor:
    """Watches one run: validates on all ranks together, and writes down what happens on the first.

    Args:
        run: what is trained.
        work: its folder; gets what `RunLog` writes.
        data: what it is trained on.
        device: of this rank.

    Raises:
        FileNotFoundError: the features of the validation prompts are missing, or the VAE that shows the videos.
        ValueError: that VAE is not the one that made the latents.
    """

    def __init__(self, run: Run, work: Path, data: LatentData, device: torch.device):
        self.run, self.data = run, data
        speed = measure(run, data, device)
        self.validation = Validation(run, work, data, device) if run.validates else None
        self.run_log = RunLog(run, work, speed, device) if speed else None
        self._is_introduced = False

    def start(self, done: int, model: StivTransformer) -> None:
        """Open the files after step `done`; the first time, also say in the log what begins."""
        if not self.run_log:
            return
        if not self._is_introduced:
            self.run_log.introduce(self.data, model, done)
            self._is_introduced = True
        self.run_log.open(done)

    def step(self, step: int, result: StepResult) -> None:
        """Write down a step that was tried."""
        if self.run_log:
            self.run_log.step(step, result)

    def pass_over(self, step: int) -> None:
        """Write down a step that is not tried again."""
        if self.run_log:
            self.run_log.pass_over(step)

    def go_back(self, step: int, to: int, passed_over: Collection[int]) -> None:
        """Write down a return to a checkpoint, and close the files."""
        if self.run_log:
            self.run_log.go_back(step, to, passed_over)

    def is_validated(self, step: int) -> bool:
        """Say whether videos are made after this step."""
        return self.validation is not None and step % self.run.training.validation_steps == 0

    def validate(self, step: int, model: StivTransformer) -> None:
        """Make the validation videos, and show them."""
        assert self.validation is not None, "is_validated says no"
        videos = self.validation.make(model)
        if self.run_log:
            self.run_log.videos(step, videos)

    def save(self, step: int) -> None:
        """Put on the disk what was written down."""
        if self.run_log:
            self.run_log.flush()

    def end(self) -> None:
        """Close the files."""
        if self.run_log:
            self.run_log.close()


def measure(run: Run, data: LatentData, device: torch.device) -> Speed | None:
    """Return on the first rank what a sample costs, and what all ranks' matrix products reach; all must call it."""
    training = run.training
    peak = torch.tensor(costs.matmul_peak(device, getattr(torch, training.precision)), device=device)
    dist.all_reduce(peak)
    if dist.get_rank() > 0:
        return None
    _, _, height, width = data.parts["latents"].shape
    shape = costs.SampleShape(run.recipe.frames, height, width, data.null_text.tokens_BLE.shape[1])
    with torch.enable_grad():  # backward is counted, on the meta device
        cost = costs.recipe_cost(run.model, training, run.recipe, shape)
    flops = cost.checkpointed_training_flops if training.activation_checkpointing else cost.training_flops
    return Speed(cost.tokens, flops, peak.item())
