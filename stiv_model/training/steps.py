"""Single steps of a training: forward and backward over the micro-batches, then the update, unless the guard objects.

Shapes: B batch, F latent frames, C channels, H, W latents.
"""

import math
import resource

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from torch import Tensor

from stiv_model.distributed import deepspeed_engine
from stiv_model.latents import balance, data_plan
from stiv_model.latents.dataset import Batch, LatentData
from stiv_model.latents.order import micro_batches
from stiv_model.network.conditions import Text
from stiv_model.settings import Run
from stiv_model.training import learning_rate
from stiv_model.training.loss import Draws, draw, losses
from stiv_model.training.observer import StepResult
from stiv_model.training.prefetch import ReadAhead
from stiv_model.training.run_files import NOISE_LEVELS
from stiv_model.training.spike_guard import Guard


class Steps:
    """Takes the steps of a run, in any order, each the same whenever it is taken.

    Args:
        run: what is trained.
        engine: the model, as `deepspeed_engine.engine` returns it.
        data: what it is trained on.
        guard: judges every step before the weights are changed.
        device: of this rank.
    """

    def __init__(self, run: Run, engine: DeepSpeedEngine, data: LatentData, guard: Guard, device: torch.device):
        self.run, self.engine, self.data, self.guard, self.device = run, engine, data, guard, device
        self.order = balance.order(len(data.samples), run.training.seed, data.balance)
        self.null_text = Text(*(part.to(device) for part in data.null_text))
        self.result = StepResult()
        self.feed: ReadAhead | None = None
        self.stall_seconds = 0.0
        deepspeed_engine.judge_before_update(engine, self._judge)

    def begin(self, done: int) -> None:
        """Start reading ahead, from the step after `done` on, what the guard does not pass over."""
        self.close()
        recipe, training = self.run.recipe, self.run.training
        steps = (step for step in range(done, recipe.steps) if step + 1 not in self.guard.passed_over)
        together = data_plan.together(recipe, training)
        rank, ranks = dist.get_rank() // together, dist.get_world_size() // together
        schedule = micro_batches(steps, recipe.batch, training.accumulation, rank, ranks)
        self.feed = ReadAhead(self._read, schedule, depth=2)

    def close(self) -> None:
        """Stop reading ahead."""
        if self.feed is not None:
            self.stall_seconds += self.feed.stall_seconds
            self.feed.close()

    def take(self, step: int) -> StepResult:
        """Take step `step`, counted from 1, with the other ranks; the guard may skip the update."""
        self.result = result = StepResult()
        result.learning_rate = self._set_learning_rate(step)
        totals = torch.zeros(2, NOISE_LEVELS, device=self.device)
        bad: list[str] = []
        for part in range(self.run.training.accumulation):
            assert self.feed is not None, "begin first"
            batch, draws = next(self.feed)
            loss_B = self._learn(batch, draws, totals)
            bad += [
                self.data.samples.clip(sample)
                for sample, loss in zip(batch.samples, loss_B.tolist(), strict=True)
                if not math.isfinite(loss)
            ]
            if part + 1 == self.run.training.accumulation:
                dist.all_reduce(totals)
                result.loss = (totals[0].sum() / totals[1].sum()).item()
            self.engine.step()
        result.level_losses = (totals[0] / totals[1]).tolist()
        result.clips = self._clips(step) if dist.get_rank() == 0 else []
        result.peak_memory_bytes = peak_memory_bytes(self.device)
        if result.skip_reason:
            result.bad_clips = _of_all_ranks(bad)
        return result

    def _set_learning_rate(self, step: int) -> float:
        rate = learning_rate.of_step(step, self.run.recipe)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _learn(self, batch: Batch, draws: Draws, totals: Tensor) -> Tensor:
        """Add the gradient of one micro-batch, and its losses and counts per noise level to `totals`."""
        batch, draws = batch.to(self.device), Draws(*(drawn.to(self.device) for drawn in draws))
        loss_B = losses(self.engine, batch, draws, self.null_text, self.run.recipe, self.run.training)
        self.engine.backward(loss_B.mean())
        level_B = (draws.timestep_B * NOISE_LEVELS).long().clamp(max=NOISE_LEVELS - 1)
        totals.index_add_(1, level_B, torch.stack([loss_B.detach(), torch.ones_like(loss_B)]))
        return loss_B.detach()

    def _judge(self, gradient_norm: float) -> bool:
        self.result.gradient_norm = gradient_norm
        self.result.skip_reason = self.guard.judge(self.result.loss, gradient_norm)
        return self.result.skip_reason is None

    def _clips(self, step: int) -> list[str]:
        first = (step - 1) * self.run.recipe.batch
        return [self.data.samples.clip(self.order[first + index]) for index in range(self.run.recipe.batch)]

    def _read(self, positions: range) -> tuple[Batch, Draws]:
        batch = self.data.batch([self.order[position] for position in positions], pin=self.device.type == "cuda")
        shape = tuple(batch.latents_BFCHW.shape[1:])
        num_spatial = shape[-2] * shape[-1] // self.run.model.spatial_patch**2
        return batch, draw(list(positions), shape, num_spatial, self.run.recipe, self.run.training)


def _of_all_ranks(names: list[str]) -> list[str]:
    every: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(every, names)
    return sorted({name for some in every for name in some})


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most bytes of memory that this process has had: allocated on its GPU, or resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
