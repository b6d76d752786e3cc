"""Train one recipe: `torchrun -m stiv_model.train WORK`, the same command on every rank.

WORK holds run.json (what to do), plan.json (with which data) and, where the run has a parent, start/
(`stiv_model.hand_over`). It gets the files of `stiv_model.records`, checkpoints/ (to go on from), and at the end
weights/ (the EMA weights). Every random draw is a function of the seed and of the sample's position in the run: a run
that was killed goes on with the same samples, noise and times.

Shapes: B batch.
"""

import fcntl
import json
import logging
import math
import os
import sys
import time
from pathlib import Path
from typing import TextIO

import torch
import torch.distributed as dist

from stiv_model import checkpoints, costs, hand_over, plan, records, sequence, signals, stopping, weights, zero
from stiv_model.certificate import START
from stiv_model.checkpoints import Progress
from stiv_model.conditions import Text
from stiv_model.ema import Ema
from stiv_model.guard import IN_A_ROW, Guard
from stiv_model.latent_data import Batch, LatentData, Order, micro_batches
from stiv_model.lifetime import die_with_parent
from stiv_model.objective import Draws, draw, losses
from stiv_model.read_ahead import ReadAhead
from stiv_model.records import NOISE_LEVELS, Records, Speed
from stiv_model.settings import Run
from stiv_model.transformer import StivTransformer
from stiv_model.watchdog import Watchdog

log = logging.getLogger(__name__)


def train(work: Path) -> None:
    """Train until the recipe's last step, going on from the newest whole checkpoint.

    Raises:
        ValueError: the data is not what the plan says, or the starting weights have no certificate for this run.
        FloatingPointError: loss or gradient norm went bad again and again; incidents.jsonl names the clips.
        SystemExit: a request to stop, after the work was saved.
    """
    run = Run.model_validate(json.loads((work / "run.json").read_text()))
    recipe, training = run.recipe, run.training
    stop = signals.StopRequest()
    zero.start(training)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    lock = (work / "lock").open("w") if rank == 0 else None
    if lock:
        _take(lock, work)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if training.device == "cuda" else torch.device("cpu")

    data = LatentData(Path(run.latents), recipe.best_fraction)
    plan.check_run(plan.read(work), run, ranks, data.samples.clips.to_pylist())
    model = StivTransformer(run.model, is_video=recipe.frames > 1)
    model.activation_checkpointing = training.activation_checkpointing
    if run.parent:
        hand_over.load_start(model, run, work / START)
    if training.compile:
        model.compile_blocks()
    if group := sequence.join(plan.together(recipe, training)):
        model.share_sequence(group)
    shared = zero.engine(model, recipe, training)
    ema = Ema(shared, training.optimizer.ema_decay)
    speed = measure(run, data, device)  # draws numbers: before the random states are restored
    folder = work / "checkpoints"
    folder.mkdir(exist_ok=True)
    progress = checkpoints.resume(folder, run, shared, ema) or Progress(step=0, position=0, loop={})
    guard = Guard(training, progress.loop)
    if rank == 0:
        log.info(
            "%s: %.1f million parameters, %d of %d clips, %d samples in %d steps, from step %d",
            run.recipe_name,
            sum(p.ds_numel for p in model.parameters()) / 1e6,  # type: ignore[attr-defined]  # set by DeepSpeed
            len(data.samples),
            data.given,
            recipe.steps * recipe.batch,
            recipe.steps,
            progress.step,
        )

    steps = Steps(run, shared, data, guard, device)
    steps.begin(progress.step)
    book = Records(work, progress.step, recipe.steps, recipe.batch, speed) if rank == 0 else None
    watchdog = Watchdog(training.hang_seconds)
    saved_at, done = time.monotonic(), progress.step
    while done < recipe.steps:
        step = done + 1
        if step in guard.passed_over:
            done = step
            if book:
                book.passed_over(step)
            continue
        taken = steps.take(step)
        watchdog.step()
        if taken.why_not is None:
            ema.update(done)
        done = step
        if book:
            book.samples(step, (step - 1) * recipe.batch, taken.clips)
            book.step(step, taken.loss, taken.gradient_norm, taken.learning_rate, taken.levels)
            if taken.why_not:
                book.incident(step, why=taken.why_not, bad=taken.bad_clips, clips=taken.clips)

        if guard.bad_in_a_row == IN_A_ROW:
            with watchdog.slower():
                back = checkpoints.resume(folder, run, shared, ema)
            if back is None:
                raise FloatingPointError(
                    f"{IN_A_ROW} bad steps in a row up to step {step}, and no checkpoint to go back to: see "
                    f"{work / records.INCIDENTS} for the clips, and lower the learning rate or look at the data"
                )
            guard.go_back(back.step, step, back.loop)
            if book:
                book.incident(step, back_to=back.step, passed_over=guard.passed_over)
                book.close()
                book = Records(work, back.step, recipe.steps, recipe.batch, speed)
            done = back.step
            steps.begin(done)
            continue

        is_late = rank == 0 and time.monotonic() - saved_at > training.checkpoint_seconds
        is_due, is_stop = signals.on_any_rank([is_late or step % training.checkpoint_steps == 0, stop.is_made], device)
        if done < recipe.steps and ((is_due and guard.bad_in_a_row == 0) or is_stop):
            here = Progress(step=done, position=done * recipe.batch, loop=guard.memory())
            with watchdog.slower():
                checkpoints.save(folder, run, shared, ema, here)
            saved_at = time.monotonic()
        if done < recipe.steps and is_stop:
            watchdog.stop()
            steps.close()
            if rank == 0:
                stopping.mark_stopped(work, done)
                log.info("asked to stop: saved after step %d", done)
            zero.stop(shared)
            sys.exit(signals.EXIT_CODE)

    watchdog.stop()
    steps.close()
    averaged = ema.gather()
    if book:
        log.info("waited %.2f s for data", steps.stall_seconds)
        aside = work / "weights.tmp"
        weights.save(aside, averaged, run.model, model.is_video, hand_over.outcome(run, data))
        aside.rename(work / "weights")
    zero.stop(shared)


class Taken:
    """What came of one step, the same on all ranks but for the clips."""

    def __init__(self) -> None:
        self.loss = self.gradient_norm = self.learning_rate = math.nan
        self.levels: list[float] = []
        self.why_not: str | None = None
        self.clips: list[str] = []
        """Of all ranks."""
        self.bad_clips: list[str] = []
        """Those whose own loss is not finite."""


class Steps:
    """Takes single steps: forward and backward over the micro-batches, then the update, unless the guard objects."""

    def __init__(self, run: Run, shared, data: LatentData, guard: Guard, device: torch.device):
        self.run, self.shared, self.data, self.guard, self.device = run, shared, data, guard, device
        self.order = Order(len(data.samples), run.training.seed)
        self.null_text = Text(*(part.to(device) for part in data.null_text))
        self.taken = Taken()
        self.feed: ReadAhead | None = None
        self.stall_seconds = 0.0
        zero.judge_before_update(shared, self._judge)

    def take(self, step: int) -> Taken:
        """Take step `step`, counted from 1."""
        run, taken = self.run, Taken()
        self.taken = taken
        taken.learning_rate = run.recipe.learning_rate * min(1, step / run.recipe.warmup_steps)
        for group in self.shared.optimizer.param_groups:
            group["lr"] = taken.learning_rate
        totals = torch.zeros(2, NOISE_LEVELS, device=self.device)
        bad: list[str] = []
        for part in range(run.training.accumulation):
            assert self.feed is not None, "begin first"
            batch, draws = next(self.feed)
            batch, draws = batch.to(self.device), Draws(*(drawn.to(self.device) for drawn in draws))
            loss_B = losses(self.shared, batch, draws, self.null_text, run.recipe, run.training)
            self.shared.backward(loss_B.mean())
            bad += [clip for clip, loss in zip(batch.clips, loss_B.tolist(), strict=True) if not math.isfinite(loss)]
            level_B = (draws.time_B * NOISE_LEVELS).long().clamp(max=NOISE_LEVELS - 1)
            totals.index_add_(1, level_B, torch.stack([loss_B.detach(), torch.ones_like(loss_B)]))
            if part + 1 == run.training.accumulation:
                dist.all_reduce(totals)
                taken.loss = (totals[0].sum() / totals[1].sum()).item()
            self.shared.step()
        taken.levels = (totals[0] / totals[1]).tolist()
        first = (step - 1) * run.recipe.batch
        taken.clips = [self.data.samples[self.order[first + place]].clip for place in range(run.recipe.batch)]
        if taken.why_not:
            every: list[list[str]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(every, bad)
            taken.bad_clips = sorted({clip for some in every for clip in some})
        return taken

    def begin(self, done: int) -> None:
        """Start reading ahead, from the step after `done` on, what the guard does not pass over."""
        self.close()
        recipe, training = self.run.recipe, self.run.training
        steps = (step for step in range(done, recipe.steps) if step + 1 not in self.guard.passed_over)
        together = plan.together(recipe, training)
        rank, ranks = dist.get_rank() // together, dist.get_world_size() // together
        schedule = micro_batches(steps, recipe.batch, training.accumulation, rank, ranks)
        self.feed = ReadAhead(self._read, schedule, depth=2)

    def close(self) -> None:
        """Stop reading ahead."""
        if self.feed is not None:
            self.stall_seconds += self.feed.stall_seconds
            self.feed.close()

    def _read(self, positions: range) -> tuple[Batch, Draws]:
        batch = self.data.batch([self.order[position] for position in positions], pin=self.device.type == "cuda")
        frames, channels, height, width = batch.latents_BFCHW.shape[1:]
        places = height * width // self.run.model.spatial_patch**2
        shape = (self.run.recipe.frames, channels, height, width)
        return batch, draw(list(positions), shape, frames, places, self.run.recipe, self.run.training)

    def _judge(self, gradient_norm: float) -> bool:
        self.taken.gradient_norm = gradient_norm
        self.taken.why_not = self.guard.judge(self.taken.loss, gradient_norm)
        return self.taken.why_not is None


def measure(run: Run, data: LatentData, device: torch.device) -> Speed:
    """Return what a sample costs, and what the ranks' matrix products reach together; all ranks must call it."""
    training = run.training
    peak = torch.tensor(costs.matmul_peak(device, getattr(torch, training.precision)), device=device)
    dist.all_reduce(peak)
    _, _, height, width = data.parts["latents"].shape
    shape = costs.Shape(run.recipe.frames, height, width, data.null_text.tokens_BLE.shape[1])
    cost = costs.sample(run.model, training, run.recipe.frames > 1, shape, run.recipe.mask_ratio)
    flops = cost.checkpointed_training_flops if training.activation_checkpointing else cost.training_flops
    return Speed(cost.tokens, flops, peak.item())


def _take(lock: TextIO, work: Path) -> None:
    """Hold the lock of a run's folder until this process ends.

    Raises:
        RuntimeError: ranks of another attempt are still alive.
    """
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise RuntimeError(f"{work} is in use by ranks of another attempt: end them first") from error


def main() -> None:
    die_with_parent()  # else the ranks go on when their launcher is killed
    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if is_first else logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    train(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
