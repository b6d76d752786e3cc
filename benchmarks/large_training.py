"""Whether steps of large models have become slower: XL-sized blocks on two ZeRO-3 ranks, now and at an earlier commit.

    python benchmarks/large_training.py --before d2ed347~1 --rounds 5 --json large_training.json

in a clone of the repository that has the commit. Two ranks (gloo, one thread each) of either tree take steps of two
blocks of infra/params/xl-256.yaml, the second of which sees all tokens, on a short made-up sample each: draws, passes,
clipping, update, average. They take turns, step by step: now, before, now, before; the first step of each does not
count. `large_over_before` is the CPU seconds of a step, both ranks together, over those of the earlier tree's step
beside it; with the persistent parameters of that file, which are none, and with those of at most 100,000 elements.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

import stiv_model
from flows.params import Params, load_params
from stiv_model.distributed import deepspeed_engine
from stiv_model.distributed.ema import Ema
from stiv_model.latents.dataset import Batch
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.training.loss import draw, losses
from stiv_model.weights import initialisation
from tasks.training.launch import environment

ROOT = Path(__file__).parents[1]
XL = Path("infra/params/xl-256.yaml")
RANKS, FRAMES, SIDE = 2, 4, 16
CASES = (0, 100_000)
_TURN = timedelta(minutes=30)  # at most, on a busy machine


def settings(checkout: Path, persistent: int) -> Params:
    """Return the settings of XL in a tree, with few blocks, for two ranks on the CPU."""
    params = load_params(checkout / XL)
    training: dict[str, Any] = {"ranks": RANKS, "device": "cpu", "precision": "float32", "accumulation": 1}
    training |= {"persistent_parameters": persistent, "activation_checkpointing": False}
    recipe = params.train["t2v"].model_copy(update={"frames": FRAMES, "batch": RANKS})
    return params.model_copy(
        update={
            "model": params.model.model_copy(update={"depth": 1, "unmasked_depth": 1}),
            "training": params.training.model_copy(update=training),
            "train": params.train | {"t2v": recipe},
        }
    )


def made_up(params: Params) -> Batch:
    tokens, width = params.text.tokens, params.model.text_width
    text = Text(torch.randn(1, tokens, width), torch.ones(1, tokens, dtype=torch.bool), torch.randn(1, width))
    latents = torch.randn(1, FRAMES, params.model.latent_channels, SIDE, SIDE)
    return Batch([0], latents, text, torch.ones(1, len(MICRO_CONDITIONS)))


def stepper(params: Params) -> Callable[[int], None]:
    """Return what takes an optimizer step, by its number, on this rank."""
    recipe, training = params.train["t2v"], params.training
    model = deepspeed_engine.build(params.model, True, recipe, training)
    engine = deepspeed_engine.engine(model, recipe, training)
    deepspeed_engine.start_from(engine, partial(initialisation.fill, params.model, True, training.seed))
    ema, batch = Ema(engine, training.optimizer.ema_decay), made_up(params)
    places = (SIDE // params.model.spatial_patch) ** 2

    def step(number: int) -> None:
        draws = draw([number], batch.latents_BFCHW.shape[1:], places, recipe, training)
        engine.backward(losses(engine, batch, draws, batch.text, recipe, training).mean())
        engine.step()
        ema.update(number)

    return step


def rank_main(name: str, rounds: int, port: int) -> None:
    """Take each step when it is this tree's turn, and tell what it cost."""
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", port, timeout=_TURN)
    cases = [settings(Path(stiv_model.__file__).parents[1], persistent) for persistent in CASES]
    deepspeed_engine.start(cases[0].training)
    for persistent, params in zip(CASES, cases, strict=True):
        step = stepper(params)
        for number in range(rounds + 1):
            turn = f"{persistent} {number} {name}"
            store.wait([turn])
            dist.barrier()
            began, cpu = time.perf_counter(), time.process_time()
            step(number)
            used = torch.tensor(time.process_time() - cpu)
            dist.all_reduce(used)
            if dist.get_rank() == 0:
                store.set(f"{turn} took", json.dumps([used.item(), time.perf_counter() - began]))
    dist.barrier()
    dist.destroy_process_group()


@contextmanager
def ranks(name: str, checkout: Path, rounds: int, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Have the ranks of a tree wait for their turns; give the process that started them."""
    words = [__file__, "--before", name, "--rounds", str(rounds), "--rank", str(port)]
    env = environment(settings(ROOT, 0).training) | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "stiv_model.distributed.local_ranks", str(RANKS)]
    with subprocess.Popen([*launcher, *words], cwd=checkout, env=env, stdout=subprocess.DEVNULL) as child:
        try:
            yield child
        except BaseException:
            child.terminate()
            raise


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """Give the tree of a commit in a folder that is made, for as long as it is needed."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--detach", "--quiet", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def measure(commit: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return median and spread over the rounds of what a step costs, and of now over before.

    Raises:
        ChildProcessError: the ranks of a tree ended before their turn.
    """
    found: dict[str, list[float]] = {}
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=_TURN)
    with (
        tempfile.TemporaryDirectory() as folder,
        checked_out(commit, Path(folder) / "tree") as tree,
        ranks("now", ROOT, rounds, store.port) as now,
        ranks("before", tree, rounds, store.port) as before,
    ):
        for persistent in CASES:
            for number in range(rounds + 1):
                (cpu, wall), (cpu_before, wall_before) = (
                    _take(store, f"{persistent} {number} {name}", child)
                    for name, child in (("now", now), ("before", before))
                )
                named = {"large_over_before": cpu / cpu_before, "large_over_before_wall": wall / wall_before}
                named |= {"cpu_seconds": cpu, "cpu_seconds_before": cpu_before}
                for what, value in named.items():
                    found.setdefault(f"{what}_persistent_{persistent}", []).append(value)
    return {
        what: {"median": statistics.median(values), "low": min(values), "high": max(values), "rounds": len(values)}
        for what, (_, *values) in found.items()
    }


def _take(store: TCPStore, turn: str, child: subprocess.Popen[bytes]) -> list[float]:
    """Give a tree its turn and return the CPU seconds of its ranks together and those of the clock."""
    store.set(turn, "")
    while not store.check([f"{turn} took"]):
        if child.poll() is not None:
            raise ChildProcessError(f"the ranks that had turn `{turn}` have ended with {child.returncode}")
        time.sleep(0.05)
    return json.loads(store.get(f"{turn} took"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="the earlier commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        rank_main(options.before, options.rounds, options.rank)
        return
    figures = measure(options.before, options.rounds)
    for name, value in figures.items():
        print(f"{name:42} {value['median']:.3f} [{value['low']:.3f}, {value['high']:.3f}]  {value['rounds']} rounds")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
