"""What a step of a small model costs beyond its arithmetic: the trainer on two ZeRO-3 ranks, next to a plain loop.

    python benchmarks/small_training.py --rounds 3 --json small_training.json

with the folder of the repository on PYTHONPATH or the package installed. The trainer, started as `stiv train` starts
it (two ranks, made-up clips on the disk, draws, guard, EMA, logs), takes steps of the embedded recipes t2i and t2v. A
loop in one process takes the same with the same model, objective, batch and precision: forward, backward, clipping,
AdamW, its draws and batch made once. Both in CPU seconds of all their processes and threads; what a run costs before
its first steps is taken off by a shorter one. `small_over_plain` is the samples per CPU second of the one over those
of the other, in the same round; no validation and no checkpoint falls into a round.
"""

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from flows.params import load_params
from stiv_model.latents import data_plan
from stiv_model.latents.dataset import Batch
from stiv_model.latents.folder import TABLE
from stiv_model.latents.shard_files import TEXT_PARTS, TEXT_SHA256, text_sha256, write
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import NULL_TEXT, RUN_FILE, ConstantRate, Encoders, RecipeSettings, Run
from stiv_model.training.loss import draw, losses
from tasks.storage import tables
from tasks.training.launch import environment, launch_command

RECIPES, CLIPS, STEPS = ("t2i", "t2v"), 256, (20, 80)
PARAMS = load_params()
MADE_BY = {"vae_sha256": "made up", "text_sha256": "made up"}
_PLAIN = (5, 25)


def recipe(name: str, steps: int) -> RecipeSettings:
    changes = {"steps": steps, "warmup_steps": 1, "decay": ConstantRate(kind="constant")}
    return PARAMS.train[name].model_copy(update=changes)


def made_up(clips: int) -> dict[str, Tensor]:
    """Return the latents and texts of so many clips, of the embedded sizes, as files of latents have them."""
    model, latents = PARAMS.model, PARAMS.latents
    side = latents.height // 8, latents.width // 8
    text = torch.randn(clips, PARAMS.text.tokens, model.text_width), torch.randn(clips, model.text_width)
    return {
        "latents": torch.randn(clips, latents.frames, model.latent_channels, *side).half(),
        "tokens": text[0].half(),
        "mask": torch.ones(clips, PARAMS.text.tokens, dtype=torch.bool),
        "pooled": text[1].half(),
    }


def make_latents(folder: Path) -> None:
    """Make a folder as stage latents would leave it."""
    folder.mkdir()
    clips, null = made_up(CLIPS), {name: part for name, part in made_up(1).items() if name != "latents"}
    write(folder / "part-00000.safetensors", clips, MADE_BY)
    write(folder / NULL_TEXT, null, MADE_BY | {TEXT_SHA256: _text_sha256(null, 0)})
    given = {"status": "ok", "aesthetic": 5.0, "width": 128, "height": 128, "crop_top": 0, "crop_left": 0}
    given |= {"stride_frames": 3, "frames": PARAMS.latents.frames, "shard": "part-00000.safetensors"}
    rows = [
        dict.fromkeys(tables.LATENTS.names)
        | given
        | {
            "clip": f"clip-{row}",
            "row": row,
            "sha256": hashlib.sha256(clips["latents"][row].numpy().tobytes()).hexdigest(),
            "text_sha256": _text_sha256(clips, row),
        }
        for row in range(CLIPS)
    ]
    tables.write_rows(folder / TABLE, rows, tables.LATENTS)


def _text_sha256(clips: dict[str, Tensor], row: int) -> str:
    return text_sha256({name: clips[name][row].numpy().data for name in TEXT_PARTS})


def by_trainer(name: str, steps: int, latents: Path, work: Path) -> float:
    """Train so many steps from random weights and return the CPU seconds of all processes."""
    changes = {"ranks": 2, "nodes": 1, "device": "cpu", "precision": "float32", "zero_stage": 3}
    changes |= {"validation_steps": 0, "checkpoint_seconds": 10_000.0, "validation_prompts": []}
    training = PARAMS.training.model_copy(update=changes)
    run = Run(
        recipe_name=name,
        latents=str(latents),
        latents_sha256="",
        encoders=Encoders(**MADE_BY),
        model=PARAMS.model,
        recipe=recipe(name, steps),
        training=training,
        **dict.fromkeys(("parent", "parent_sha256", "temporal_parent", "temporal_parent_sha256")),
    )
    work.mkdir()
    (work / RUN_FILE).write_text(run.model_dump_json())
    plan = data_plan.make(latents, name, run.model, run.recipe, training)
    (work / data_plan.FILE).write_text(plan.model_dump_json())
    before = _cpu_seconds_of_children()
    subprocess.run(launch_command(training, work), env=environment(training), stdout=subprocess.DEVNULL, check=True)
    return _cpu_seconds_of_children() - before


def by_plain_loop(name: str, steps: int) -> float:
    """Take so many steps in this process and return its CPU seconds for all but the first few."""
    settings, training = recipe(name, steps), PARAMS.training
    model = StivTransformer(PARAMS.model, is_video=settings.frames > 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0, foreach=True)
    clips, null = made_up(settings.batch), made_up(1)
    latents = clips["latents"][:, : settings.frames].float()
    batch = Batch(list(range(settings.batch)), latents, _text(clips), torch.ones(settings.batch, len(MICRO_CONDITIONS)))
    places = latents.shape[3] * latents.shape[4] // PARAMS.model.spatial_patch**2
    draws = draw(batch.samples, latents.shape[1:], places, settings, training)
    began = 0.0
    for step in range(steps):
        if step == _PLAIN[0]:
            began = time.process_time()
        losses(model, batch, draws, _text(null), settings, training).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return time.process_time() - began


def _text(clips: dict[str, Tensor]) -> Text:
    return Text(clips["tokens"].float(), clips["mask"], clips["pooled"].float())


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(rounds: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return medians and spread of the ratio and of the samples per CPU second, for each recipe."""
    latents = folder / "latents"
    make_latents(latents)
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        for name in RECIPES:
            samples = PARAMS.train[name].batch
            short, long = (by_trainer(name, steps, latents, folder / f"{number}-{name}-{steps}") for steps in STEPS)
            own = samples * (STEPS[1] - STEPS[0]) / (long - short)
            plain = samples * (_PLAIN[1] - _PLAIN[0]) / by_plain_loop(name, _PLAIN[1])
            figures = {"small_over_plain": own / plain, "small_samples": own, "plain_samples": plain}
            for what, value in figures.items():
                found.setdefault(f"{what}_{name}", []).append(value)
    return {
        what: {"median": statistics.median(values), "low": min(values), "high": max(values), "rounds": rounds}
        for what, values in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options.rounds, Path(folder))
    for name, value in figures.items():
        print(f"{name:28} {value['median']:.3f} [{value['low']:.3f}, {value['high']:.3f}]  {options.rounds} rounds")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
