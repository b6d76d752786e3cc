"""Train one recipe: `torchrun -m stiv_model.train WORK`, the same command on every rank.

WORK holds run.json (what to do). It gets losses.tsv, checkpoints/ (to go on from), and at the end weights/ (the
EMA weights). Every random draw is a function of the seed and of the sample's position in the run: a run that
was killed goes on with the same samples, noise and times.

Shapes: B batch, F latent frames, C channels, S places, K kept ones, M micro-conditions.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from einops import rearrange, repeat
from torch import Tensor

from stiv_model import velocity, weights, zero
from stiv_model.conditions import MICRO_CONDITIONS, Text
from stiv_model.ema import Ema
from stiv_model.image_condition import clean_frames, replace
from stiv_model.latent_data import Batch, LatentData, Order, draw_seed
from stiv_model.lifetime import die_with_parent
from stiv_model.masking import kept_places, kept_weight
from stiv_model.plan import micro_batch
from stiv_model.settings import RecipeSettings, Run, TrainingSettings
from stiv_model.transformer import StivTransformer

log = logging.getLogger(__name__)

LOSS_COLUMNS = ("step", "loss", "gradient_norm", "learning_rate", "samples_per_second", "seconds")


class Draws(NamedTuple):
    """The random numbers of some samples."""

    noise_BFCHW: Tensor
    time_B: Tensor
    drop_text_B: Tensor
    drop_image_B: Tensor
    frame_B: Tensor
    """Which latent frame an image recipe takes."""
    order_BS: Tensor
    """A random order of the places, of which the first are kept."""


def draw(
    positions: list[int],
    shape: tuple[int, ...],
    frames: int,
    places: int,
    recipe: RecipeSettings,
    training: TrainingSettings,
) -> Draws:
    """Draw for the samples at these positions of the run; `shape` is that of one sample, (F, C, H, W)."""
    columns = []
    for position in positions:
        generator = torch.Generator().manual_seed(draw_seed(training.seed, "sample", position))
        noise = torch.randn(shape, generator=generator)
        uniform = torch.rand(4, generator=generator).clamp(1e-6, 1 - 1e-6)
        order = torch.randperm(places, generator=generator)
        columns.append((noise, uniform, order))
    noise, uniform, order = (torch.stack(column) for column in zip(*columns, strict=True))
    return Draws(
        noise,
        velocity.timesteps(uniform[:, 0], training.timestep_density),
        uniform[:, 1] < recipe.text_dropout,
        uniform[:, 2] < recipe.image_dropout,
        (uniform[:, 3] * frames).long(),
        order,
    )


def loss(model: StivTransformer, batch: Batch, draws: Draws, null_text: Text, recipe: RecipeSettings) -> Tensor:
    """Return the loss of one micro-batch (paper, sections 2.1 to 2.3)."""
    data = batch.latents_BFCHW
    data = data[torch.arange(len(data)), draws.frame_B][:, None] if recipe.frames == 1 else data[:, : recipe.frames]
    micro = batch.micro_BM.clone()
    micro[:, MICRO_CONDITIONS.index("frames")] = recipe.frames
    if recipe.frames == 1:
        micro[:, MICRO_CONDITIONS.index("stride_frames")] = 0
    text = Text(
        *(
            torch.where(rearrange(draws.drop_text_B, f"B -> B {'1 ' * (own.ndim - 1)}"), null, own)
            for own, null in zip(batch.text, null_text, strict=True)
        )
    )

    pattern = clean_frames(recipe.clean_frames, recipe.frames).to(data.device)
    is_clean = pattern & ~draws.drop_image_B[:, None]
    x = replace(velocity.path(data, draws.noise_BFCHW, draws.time_B), data, is_clean)

    weight = rearrange((~is_clean).float(), "B F -> B F 1 1 1")
    kept = None
    if recipe.mask_ratio:
        kept = kept_places(draws.order_BS, recipe.mask_ratio)
        patch = model.settings.spatial_patch
        seen = kept_weight(kept, draws.order_BS.shape[1])
        rows = data.shape[3] // patch
        weight = weight * repeat(seen, "B (h w) -> B 1 1 (h p) (w q)", h=rows, p=patch, q=patch)

    dtype = next(model.parameters()).dtype
    predicted = model(x.to(dtype), draws.time_B, text, micro, kept)
    return velocity.loss(predicted, velocity.target(data, draws.noise_BFCHW), weight)


def train(work: Path) -> None:
    """Train until the recipe's last step, going on from the newest whole checkpoint.

    Raises:
        ValueError: the data does not suit the recipe, or the parent does not suit the model.
        FloatingPointError: the loss of a batch is not finite; the message names its clips.
    """
    run = Run.model_validate(json.loads((work / "run.json").read_text()))
    recipe, training = run.recipe, run.training
    torch.manual_seed(training.seed)
    zero.start(training)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    is_first = rank == 0
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if training.device == "cuda" else torch.device("cpu")

    data = LatentData(Path(run.latents), recipe.best_fraction)
    if recipe.frames > data.frames:
        raise ValueError(
            f"train.{run.recipe_name}.frames is {recipe.frames}, but {run.latents} has {data.frames} frames "
            "per clip (latents.frames)"
        )
    model = StivTransformer(run.model, is_video=recipe.frames > 1)
    model.activation_checkpointing = training.activation_checkpointing
    if run.parent:
        weights.initialise(model, Path(run.parent))
    shared = zero.engine(model, recipe, training)
    ema = Ema(shared, training.optimizer.ema_decay)
    checkpoints = work / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    done = zero.resume(checkpoints, shared, ema)
    if is_first:
        log.info(
            "%s: %.1f million parameters, %d of %d clips, %d samples in %d steps, from step %d",
            run.recipe_name,
            sum(p.ds_numel for p in model.parameters()) / 1e6,  # type: ignore[attr-defined]  # set by DeepSpeed
            len(data.samples),
            data.given,
            recipe.steps * recipe.batch,
            recipe.steps,
            done,
        )

    curve = Curve(work / "losses.tsv", done) if is_first else None
    order = Order(len(data.samples), training.seed)
    null_text = Text(*(part.to(device) for part in data.null_text))
    share = micro_batch(recipe, training)
    saved_at = time.monotonic()
    for step in range(done, recipe.steps):
        rate = recipe.learning_rate * min(1, (step + 1) / recipe.warmup_steps)
        for group in shared.optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=device)
        for part in range(training.accumulation):
            first = step * recipe.batch + (part * ranks + rank) * share
            positions = list(range(first, first + share))
            batch = _to(data.batch([order[position] for position in positions]), device)
            rows, columns = (side // run.model.spatial_patch for side in batch.latents_BFCHW.shape[3:])
            shape = (recipe.frames, *batch.latents_BFCHW.shape[2:])
            draws = Draws(
                *(x.to(device) for x in draw(positions, shape, data.frames, rows * columns, recipe, training))
            )
            value = loss(shared, batch, draws, null_text, recipe)
            _refuse_infinite(value, batch.clips, step)
            shared.backward(value)
            shared.step()
            total += value.detach() / training.accumulation
        ema.update(step)
        dist.all_reduce(total)
        if curve:
            curve.add(step + 1, recipe, total.item() / ranks, float(shared.get_global_grad_norm()), rate)
        is_due = torch.tensor(float(time.monotonic() - saved_at > training.checkpoint_seconds), device=device)
        dist.broadcast(is_due, 0)  # clocks differ, and saving is done together
        if step + 1 < recipe.steps and (is_due or (step + 1) % training.checkpoint_steps == 0):
            zero.save(checkpoints, shared, ema, step + 1, training.keep_checkpoints)
            saved_at = time.monotonic()

    averaged = ema.gather()
    if is_first:
        aside = work / "weights.tmp"
        weights.save(aside, averaged, run.model, model.is_video)
        aside.rename(work / "weights")
    zero.stop(shared)


class Curve:
    """losses.tsv, one line per step, and a line of progress every few seconds."""

    def __init__(self, path: Path, done: int):
        kept = path.read_text().splitlines()[1 : done + 1] if path.exists() else []
        self.before = float(kept[-1].split("\t")[-1]) if kept else 0.0
        self.file = path.open("w", buffering=1)
        self.file.write("\n".join(["\t".join(LOSS_COLUMNS), *kept]) + "\n")
        self.done = done
        self.started = self.last = time.monotonic()

    def add(self, step: int, recipe: RecipeSettings, value: float, gradient_norm: float, rate: float) -> None:
        now = time.monotonic()
        speed = (step - self.done) * recipe.batch / (now - self.started)
        row = (value, gradient_norm, rate, speed, self.before + now - self.started)
        self.file.write("\t".join([str(step), *(f"{number:.6g}" for number in row)]) + "\n")
        if now - self.last > 5 or step == recipe.steps:
            self.last = now
            log.info(
                "step %d of %d  loss %.4f  gradient norm %.2f  %.0f samples/s  %.0f s left",
                step,
                recipe.steps,
                value,
                gradient_norm,
                speed,
                (recipe.steps - step) * recipe.batch / speed,
            )


def _to(batch: Batch, device: torch.device) -> Batch:
    text = Text(*(part.to(device) for part in batch.text))
    return Batch(batch.clips, batch.latents_BFCHW.to(device), text, batch.micro_BM.to(device))


def _refuse_infinite(value: Tensor, clips: list[str], step: int) -> None:
    """Stop before a bad number reaches the weights, on all ranks together."""
    is_bad = (~torch.isfinite(value.detach())).float()
    if is_bad:
        log.error("step %d: the loss of a batch is %s; its clips: %s", step + 1, value.item(), ", ".join(clips))
    dist.all_reduce(is_bad, dist.ReduceOp.MAX)
    if is_bad:
        raise FloatingPointError(f"step {step + 1}: the loss is not finite on some rank; the log names the clips")


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
