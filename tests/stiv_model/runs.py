"""Runs of a small model on made latents, as stage `latents` and `stiv train` would leave them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flows.params import load_params
from stiv_model.latents import data_plan
from stiv_model.latents.shard_files import TEXT_SHA256, Shard, text_sha256, write
from stiv_model.network.conditions import Text
from stiv_model.settings import NULL_TEXT, Encoders, RecipeSettings, Run, TrainingSettings
from stiv_model.training.run_files import INCIDENTS
from tasks.storage import tables

TEXT_WIDTH, TOKENS = 12, 5
MADE_BY = {"vae_sha256": "v", "text_sha256": "t"}

_PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
SETTINGS = _PARAMS.model.model_copy(
    update={"width": 32, "depth": 2, "heads": 2, "ffn_ratio": 2.0, "latent_channels": 4, "text_width": TEXT_WIDTH}
)
RECIPE = _PARAMS.train["stiv"].model_copy(
    update={
        "frames": 4,
        "steps": 12,
        "batch": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "mask_ratio": 0.5,
        "clean_frames": "first",
        "text_dropout": 0.2,
        "image_dropout": 0.2,
        "best_fraction": 1.0,
        "balance": None,
    }
)
TRAINING = _PARAMS.training.model_copy(
    update={
        "ranks": 2,
        "precision": "float32",
        "seed": 3,
        "hang_seconds": 60.0,
        "checkpoint_seconds": 1000,
        "checkpoint_steps": 2,
        "keep_checkpoints": 2,
        "keep_every_steps": 0,
        "validation_steps": 0,
        "optimizer": _PARAMS.training.optimizer.model_copy(update={"kind": "adamw", "ema_decay": 0.9}),
    }
)


def describe(recipe: RecipeSettings = RECIPE, training: TrainingSettings = TRAINING, **changes: Any) -> Run:
    """Return the description of a run without parents."""
    nothing = dict.fromkeys(("parent", "parent_sha256", "temporal_parent", "temporal_parent_sha256"))
    known = {"recipe_name": "stiv", "latents": "latents", "latents_sha256": "", "encoders": Encoders(**MADE_BY)}
    return Run(**known | nothing | {"model": SETTINGS, "recipe": recipe, "training": training} | changes)


def prepare(
    work: Path, latents: Path, recipe: RecipeSettings = RECIPE, training: TrainingSettings = TRAINING, **changes: Any
) -> Run:
    """Make the folder of a run, or tell a run that goes on in it what is new."""
    run = describe(recipe, training, latents=str(latents), **changes)
    work.mkdir(exist_ok=True)
    (work / "run.json").write_text(run.model_dump_json())
    planned = data_plan.make(latents, run.recipe_name, run.model, recipe, training)
    (work / data_plan.FILE).write_text(planned.model_dump_json())
    return run


def table(work: Path, name: str, columns: int | None = None) -> list[list[str]]:
    """Return the first columns of a table of `stiv_model.monitoring.metrics`, a row for each step so far."""
    path = work / name
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    return [line.split("\t")[:columns] for line in lines]


def incidents(work: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / INCIDENTS).read_text().splitlines()]


def random_text(batch: int) -> Text:
    mask = torch.arange(TOKENS).expand(batch, -1) < torch.randint(1, TOKENS + 1, (batch, 1))
    return Text(torch.randn(batch, TOKENS, TEXT_WIDTH), mask, torch.randn(batch, TEXT_WIDTH))


def make_latents(folder: Path, clips: Sequence[int]) -> Path:
    """Make a latents folder with so many clips of 4 frames in each shard."""
    folder.mkdir()
    torch.manual_seed(2)
    rows = []
    for number, count in enumerate(clips):
        text = random_text(count)
        tensors = {"latents": torch.randn(count, 4, 4, 8, 8).half(), **stored(text)}
        write(folder / f"shard-{number}.safetensors", tensors, MADE_BY)
        rows += [
            dict.fromkeys(tables.LATENTS.names)
            | {
                "clip": f"clip-{number}-{row}",
                "status": "ok",
                "aesthetic": float(row),
                "width": 64,
                "height": 48,
                "crop_top": 0,
                "crop_left": 8,
                "stride_frames": 3,
                "frames": 4,
                **hashes({part: tensor[row] for part, tensor in tensors.items()}),
                "shard": f"shard-{number}.safetensors",
                "row": row,
            }
            for row in range(count)
        ]
    null = stored(random_text(1))
    null_sha256 = hashes({part: tensor[0] for part, tensor in null.items()})["text_sha256"]
    write(folder / NULL_TEXT, null, MADE_BY | {TEXT_SHA256: null_sha256})
    tables.write_rows(folder / "latents.parquet", rows, tables.LATENTS)
    return folder


def load(path: Path) -> dict[str, Tensor]:
    """Return the tensors (clips, ...) of a shard."""
    shard = Shard(path)
    clips = [shard.clip(row) for row in range(shard.rows)]
    return {name: torch.stack([clip[name] for clip in clips]) for name in shard.tensors}


def stored(text: Text) -> dict[str, Tensor]:
    """Return text features as a shard has them."""
    return {"tokens": text.tokens_BLE.half(), "mask": text.mask_BL, "pooled": text.pooled_BE.half()}


def hashes(clip: Mapping[str, Tensor]) -> dict[str, str]:
    """Return what the table says of the bytes of one clip."""
    parts = {name: tensor.numpy() for name, tensor in clip.items()}
    text = {name: part.data for name, part in parts.items() if name != "latents"}
    found = {"text_sha256": text_sha256(text)}
    if "latents" in parts:
        found["sha256"] = hashlib.sha256(parts["latents"].tobytes()).hexdigest()
    return found


def poison(latents: Path, shard: int, rows: Sequence[int]) -> None:
    """Make latents not a number, as a damaged encoder would: the table has their hash."""
    path = latents / f"shard-{shard}.safetensors"
    tensors = load(path)
    tensors["latents"][rows] = float("nan")
    write(path, tensors, MADE_BY)
    found = tables.read_rows(latents / "latents.parquet", tables.LATENTS)
    for row in found:
        if row["shard"] == path.name:
            row |= hashes({part: tensor[row["row"]] for part, tensor in tensors.items()})
    tables.write_rows(latents / "latents.parquet", found, tables.LATENTS)
