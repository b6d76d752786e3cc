"""What ZeRO-3 costs on two CPU ranks, next to DDP and FSDP2 of the same model in the same run.

    python benchmarks/training.py --rounds 5 --json training.json

The embedded model takes steps of the recipe t2v on made-up latents, with AdamW and one thread per rank. In every round
each contender takes some steps, one after the other; what can be compared between machines is the ratio of the same
round.
Also measured: optimizer bytes per parameter, the time to save and to load a checkpoint of the ZeRO-3 run, what
benchmarks/loader.py measures of reading, and what benchmarks/small_training.py does of whole steps. On a GPU: what
benchmarks/mfu.py reaches; without one it says "not measured".
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flows.params import load_params
from stiv_model.distributed import checkpoints, deepspeed_engine
from stiv_model.distributed.adafactor import state_bytes
from stiv_model.distributed.checkpoints import Progress
from stiv_model.distributed.ema import Ema
from stiv_model.latents.dataset import Batch
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import Encoders, Run
from stiv_model.training.loss import draw, losses
from tasks.training.launch import environment

ROOT = Path(__file__).parents[1]
RANKS, STEPS = 2, 3
# Of benchmarks/loader.py.
READING = (
    "loader_stall_share",
    "loader_over_webdataset, later against usual, warm",
    "loader_over_webdataset, later against usual, cool",
    "resume_seconds",
)
_XL, _M = "infra/params/xl-256.yaml", "infra/params/m-256.yaml"
ON_GPU = {
    "mfu_xl_masked": ("--params", _XL, "--recipe", "t2v", "--micro-batch", "8"),
    "mfu_xl_unmasked": ("--params", _XL, "--recipe", "unmask_sft", "--micro-batch", "4"),
    "m_on_one_gpu": ("--params", _M, "--recipe", "t2v", "--micro-batch", "1", "--offload", "cpu", "--checkpointing"),
}
PARAMS = load_params()
RECIPE = PARAMS.train["t2v"].model_copy(update={"mask_ratio": 0.5})  # DDP wants a gradient of the mask token too
TRAINING = PARAMS.training.model_copy(update={"ranks": RANKS, "device": "cpu", "precision": "float32"})


def batch(samples: int) -> Batch:
    model, latents = PARAMS.model, PARAMS.latents
    side = latents.height // 8, latents.width // 8
    text = Text(
        torch.randn(samples, PARAMS.text.tokens, model.text_width),
        torch.ones(samples, PARAMS.text.tokens, dtype=torch.bool),
        torch.randn(samples, model.text_width),
    )
    data = torch.randn(samples, RECIPE.frames, model.latent_channels, *side)
    return Batch(["made up"] * samples, data, text, torch.ones(samples, len(MICRO_CONDITIONS)))


class Contender:
    """One model under one way of sharing it out; `step` takes an optimizer step on this rank's share."""

    def __init__(self, model: Any, settings: Any, update: Callable[[Tensor], None]):
        self.model, self.update = model, update
        # DDP hides the attributes that the objective asks the model for
        for name in ("settings", "temporal_patch"):
            if not hasattr(model, name):
                setattr(model, name, settings[name])

    def step(self, data: Batch, null_text: Text) -> float:
        height, width = data.latents_BFCHW.shape[3:]
        places = height * width // PARAMS.model.spatial_patch**2
        positions = list(range(len(data.samples)))
        draws = draw(positions, data.latents_BFCHW.shape[1:], places, RECIPE, TRAINING)
        loss = losses(self.model, data, draws, null_text, RECIPE, TRAINING).mean()
        self.update(loss)
        return loss.item()


def contenders() -> dict[str, Contender]:
    """Return the three, each with the same weights to begin with."""
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    def fresh() -> StivTransformer:
        torch.manual_seed(0)
        return StivTransformer(PARAMS.model, is_video=True)

    model = fresh()
    told = {"settings": model.settings, "temporal_patch": model.temporal_patch}
    ddp = DistributedDataParallel(model)
    sharded: Any = fresh()
    for block in (*sharded.main_blocks, *sharded.unmasked_blocks):
        fully_shard(block)
    fully_shard(sharded)
    engine = deepspeed_engine.engine(fresh(), RECIPE, TRAINING)

    def plain(module: nn.Module) -> Callable[[Tensor], None]:
        optimizer = torch.optim.AdamW(module.parameters(), lr=RECIPE.learning_rate, weight_decay=0.0)

        def update(loss: Tensor) -> None:
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), TRAINING.optimizer.clip_norm)
            optimizer.step()
            optimizer.zero_grad()

        return update

    def by_engine(loss: Tensor) -> None:
        engine.backward(loss)
        engine.step()

    return {
        "ddp": Contender(ddp, told, plain(ddp)),
        "fsdp2": Contender(sharded, told, plain(sharded)),
        "zero3": Contender(engine, told, by_engine),
    }


def race(rounds: int) -> dict[str, Any]:
    """Return seconds per step and round, and the loss of every contender's first step."""
    data = batch(RECIPE.batch // RANKS)
    null_text = Text(*(part[:1] for part in batch(1).text))
    runners = contenders()
    first = {name: runner.step(data, null_text) for name, runner in runners.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, runner in runners.items():
            dist.barrier()
            started = time.perf_counter()
            for _ in range(STEPS):
                runner.step(data, null_text)
            dist.barrier()
            seconds[name].append((time.perf_counter() - started) / STEPS)
    return {"seconds": seconds, "first_loss": first, "engine": runners["zero3"].model}


def save_and_load(engine: Any, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each save and each load (verified) of a whole checkpoint."""
    folder = Path(os.environ["BENCHMARK_FOLDER"]) / "checkpoints"
    folder.mkdir(exist_ok=True)
    fields: dict[str, Any] = dict.fromkeys(("parent", "parent_sha256", "temporal_parent", "temporal_parent_sha256"))
    run = Run(
        recipe_name="t2v",
        latents="made up",
        latents_sha256="",
        encoders=Encoders(vae_sha256="v", text_sha256="t"),
        model=PARAMS.model,
        recipe=RECIPE,
        training=TRAINING,
        **fields,
    )
    ema, seconds = Ema(engine, TRAINING.optimizer.ema_decay), {"save": [], "load": []}
    for number in range(1, rounds + 1):
        started = time.perf_counter()
        checkpoints.save(folder, run, engine, ema, Progress(step=number, position=number, loop={}))
        saved = time.perf_counter()
        checkpoints.resume(folder, run, engine, ema)
        seconds["save"].append(saved - started)
        seconds["load"].append(time.perf_counter() - saved)
    return seconds


def optimizer_bytes() -> dict[str, float]:
    """Return the bytes per parameter that each optimizer keeps, all ranks together."""
    found = {}
    for kind in ("adafactor", "adamw"):
        optimizer = TRAINING.optimizer.model_copy(update={"kind": kind})
        training = TRAINING.model_copy(update={"optimizer": optimizer})
        engine = deepspeed_engine.engine(StivTransformer(PARAMS.model, is_video=True), RECIPE, training)
        runner = Contender(engine, {}, lambda loss, engine=engine: (engine.backward(loss), engine.step()))  # type: ignore[misc]
        runner.step(batch(2), Text(*(part[:1] for part in batch(1).text)))
        total = torch.tensor(float(state_bytes(engine.optimizer.optimizer)))
        dist.all_reduce(total)
        found[kind] = total.item() / sum(p.ds_numel for p in engine.module.parameters())
        engine.destroy()
    return found


def rank_main(rounds: int) -> None:
    deepspeed_engine.start(TRAINING)
    torch.set_num_threads(1)
    result = race(rounds)
    engine = result.pop("engine")
    result |= {"checkpoint_seconds": save_and_load(engine, rounds), "optimizer_bytes_per_parameter": optimizer_bytes()}
    if dist.get_rank() == 0:
        (Path(os.environ["BENCHMARK_FOLDER"]) / "result.json").write_text(json.dumps(result))
    deepspeed_engine.stop(engine)


def other_benchmark(name: str, *words: str) -> dict[str, Any]:
    """Run another program of this folder and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, str(Path(__file__).with_name(name)), *words, "--json", str(out)]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
        return json.loads(out.read_text())


def on_gpu(*words: str) -> dict[str, Any] | str:
    return other_benchmark("mfu.py", *words) if torch.cuda.is_available() else "not measured"


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "rounds": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        rank_main(options.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        launcher = [sys.executable, "-m", "stiv_model.distributed.local_ranks", str(RANKS)]
        subprocess.run(
            [*launcher, __file__, "--rank", "--rounds", str(options.rounds)],
            env=environment(TRAINING) | {"BENCHMARK_FOLDER": folder, "OMP_NUM_THREADS": "1"},
            check=True,
        )
        found = json.loads((Path(folder) / "result.json").read_text())
    reading = other_benchmark("loader.py", "--rounds", str(options.rounds))
    small = other_benchmark("small_training.py", "--rounds", str(options.rounds))
    seconds = found["seconds"]
    figures: dict[str, Any] = {
        f"zero3_over_{peer}": summary([a / b for a, b in zip(seconds["zero3"], seconds[peer], strict=True)])
        for peer in ("ddp", "fsdp2")
    }
    figures |= {f"step_seconds_{name}": summary(values) for name, values in seconds.items()}
    figures |= {f"checkpoint_{what}_seconds": summary(all_) for what, all_ in found["checkpoint_seconds"].items()}
    figures |= {name.replace(", ", "_").replace(" ", "_"): summary(reading[name]) for name in READING} | small
    for name, value in figures.items():
        print(f"{name:28} {value['median']:.3f} [{value['low']:.3f}, {value['high']:.3f}]  {value['rounds']} rounds")
    plain = {name: found[name] for name in ("optimizer_bytes_per_parameter", "first_loss")}
    plain |= {name: on_gpu(*words) for name, words in ON_GPU.items()}
    for name, value in plain.items():
        print(f"{name:28} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures | plain, indent=2) + "\n")


if __name__ == "__main__":
    main()
