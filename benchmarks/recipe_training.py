"""Stages of `benchmarks.recipe` trained by a plain loop in one process and one thread, and kept in a folder each.

Network, objective, draws, order, schedule of the learning rate and the handing over of weights are the platform's own;
DeepSpeed, the guard and checkpoints, which change no figure here, are not there. Everything is a function of the stage
and the seed.
"""

import copy
import hashlib
import json
import math
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import recipe_data
from benchmarks.recipe_settings import PARAMS, TEXT, Stage
from stiv_model.latents.dataset import Batch
from stiv_model.latents.order import Order
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import Encoders
from stiv_model.training import learning_rate
from stiv_model.training.loss import draw, losses
from stiv_model.weights import files, warm_start
from stiv_model.weights.metadata import WEIGHTS, CheckpointMetadata, Role, Trained
from tasks.demo import shapes
from tasks.storage import atomic

RECORD = "stage.json"
_CURVE = 20
"""Points of a stored learning curve."""


@cache
def identity(stage: Stage) -> str:
    """Return what names a stage: a hash of all that decides about its weights but the seed."""
    return hashlib.sha256(json.dumps(stage.described(), sort_keys=True).encode()).hexdigest()[:16]


def folder_of(root: Path, stage: Stage, seed: int) -> Path:
    return root / "stages" / f"{stage.name.replace(' ', '-')}-{identity(stage)}-{seed}"


def record_of(root: Path, stage: Stage, seed: int) -> dict[str, Any]:
    """Return steps, seconds, arithmetic and learning curve of a trained stage."""
    return json.loads((folder_of(root, stage, seed) / RECORD).read_text())


def load(root: Path, stage: Stage, seed: int) -> StivTransformer:
    """Return the model of a trained stage, to sample from."""
    return files.load(folder_of(root, stage, seed))


def train(root: Path, stage: Stage, seed: int) -> None:
    """Train a stage whose parents are trained, and keep its averaged weights; whole or not at all."""
    out = folder_of(root, stage, seed)
    with atomic.scratch(out) as scratch:
        model = _start(root, stage, seed, scratch / "start")
        average, record = _loop(model, stage, seed, root)
        product = scratch / "product"
        files.save(product, average.state_dict().items(), stage.model, stage.is_video, _trained(stage))
        (product / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        atomic.finish(product, out)


def _start(root: Path, stage: Stage, seed: int, scratch: Path) -> StivTransformer:
    """Return the starting weights: drawn, or handed over from the parents with the platform's certificate."""
    if stage.parent is None:
        torch.manual_seed(seed)
        return StivTransformer(stage.model, stage.is_video)
    parents: dict[Role, Path] = {"weights": folder_of(root, stage.parent, seed)}
    if stage.temporal_parent is not None:
        parents["temporal"] = folder_of(root, stage.temporal_parent, seed)
    child = CheckpointMetadata(model=stage.model, is_video=stage.is_video, trained=_trained(stage))
    warm_start.write_start(child, seed, parents, scratch)
    model = StivTransformer(stage.model, stage.is_video, is_filled=False)
    model.load_state_dict(files.read(scratch / WEIGHTS, stage.model, stage.is_video))
    return model


def _trained(stage: Stage) -> Trained:
    recipe, side = stage.recipe, recipe_data.SIDES[stage.kind] // 8
    return Trained(
        recipe_name=stage.name,
        steps=recipe.steps,
        frames=recipe.frames,
        stride_frames=stage.every if stage.is_video else 0,
        latent_height=side,
        latent_width=side,
        clean_frames=recipe.clean_frames,
        text_dropout=recipe.text_dropout,
        image_dropout=recipe.image_dropout,
        ema_decay=stage.training.optimizer.ema_decay,
        encoders=Encoders(vae_sha256=PARAMS.vae.source, text_sha256=TEXT.source),
    )


def _loop(model: StivTransformer, stage: Stage, seed: int, root: Path) -> tuple[StivTransformer, dict[str, Any]]:
    """Take all steps; return the averaged weights, and steps, CPU seconds, arithmetic and learning curve."""
    recipe, settings = stage.recipe, stage.training.optimizer
    batches = _Batches(stage, seed, root)
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(
        weights, lr=0.0, betas=(settings.beta1, settings.beta2), weight_decay=settings.weight_decay, foreach=True
    )
    average = copy.deepcopy(model).requires_grad_(False)
    curve: list[float] = []
    began = time.process_time()
    for step in range(1, recipe.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate.of_step(step, recipe)
        loss = batches.loss(model, step)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, settings.clip_norm, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        share = 1 - min(settings.ema_decay, step / (9 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), weights, share)
        curve.append(loss.item())
    seconds = time.process_time() - began
    record = {"steps": recipe.steps, "gflop": round(stage.gflop, 1), "seconds": round(seconds, 1)}
    return average, record | {"losses": _thinned(curve)}


class _Batches:
    """What each step of a stage learns from: the same for the same seed, in whatever arm it stands."""

    def __init__(self, stage: Stage, seed: int, root: Path):
        self.stage, self.recipe = stage, stage.recipe
        self.training = stage.training.model_copy(update={"seed": seed})
        clips, captions = (
            recipe_data.load_clips(root, stage.kind, stage.size),
            recipe_data.load_captions(root, stage.size),
        )
        numbers = recipe_data.numbers_of(stage.part, clips)
        scenes = recipe_data.scenes(stage.size.clips, held_out=False)
        self.latents = clips.latents[numbers, :: stage.every].float()
        self.text = captions.of([shapes.caption(scenes[number]) for number in numbers])
        self.null_text = captions.null
        self.order = Order(len(numbers), seed)

    def loss(self, model: StivTransformer, step: int) -> torch.Tensor:
        """Return the mean loss of step `step`, counted from 1."""
        recipe, stage = self.recipe, self.stage
        positions = range((step - 1) * recipe.batch, step * recipe.batch)
        rows = [self.order[position] for position in positions]
        latents = self.latents[rows]
        frames, channels, height, width = latents.shape[1:]
        micro = recipe_data.micro_conditions(len(rows), frames, stage.every)
        batch = Batch(rows, latents, type(self.text)(*(part[rows] for part in self.text)), micro)
        spatial = height * width // stage.model.spatial_patch**2
        draws = draw(list(positions), (frames, channels, height, width), spatial, recipe, self.training)
        return losses(model, batch, draws, self.null_text, recipe, self.training).mean()


def _thinned(curve: list[float]) -> list[float | None]:
    """Return means of equal stretches of the curve; None where a loss was no number."""
    ends = [round((point + 1) * len(curve) / _CURVE) for point in range(_CURVE)]
    stretches = [curve[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True) if end > start]
    means = [sum(stretch) / len(stretch) for stretch in stretches]
    return [round(mean, 4) if math.isfinite(mean) else None for mean in means]
