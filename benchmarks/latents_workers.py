"""Stage latents by one worker of the local engine and by two: clips per second, CPU, and whether the bytes are equal.

    python benchmarks/latents_workers.py --clips 96 --rounds 3

with the folder of the repository on PYTHONPATH or the package installed, and on a machine that does nothing else. The
encoders are the embedded ones, on the CPU; videos are made, and decoded in the sandbox as ever. CPU is that of the
stage and of its sandbox together; by it and the clock, `cores` says how many are kept busy. One worker keeps more than
one: the sandbox decodes the next clips while it encodes these. `most two / one` is what two workers can reach on two
cores at the CPU that a clip takes, however little one waits for the other.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.device import write_inputs
from flows.params import Params, load_params
from tasks.latents.encode import Latents
from tasks.storage.shards import Shard
from tasks.storage.stage import Stage, run

ROOT = Path(__file__).parents[1]


class Rate(NamedTuple):
    """Of one run, its first shard left out."""

    clips_per_second: float
    cpu_seconds: float
    """Of a clip."""
    cores: float
    """That were busy."""


def cpu_seconds() -> float:
    """Return the CPU time of this process and of those below it, with what ended there."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(sum(each[:4]) for each in times)


def by_threads(workers: int, rates: list[Rate], stage: Stage, work_on: Callable[[Shard], None],
               todo: list[Shard]) -> None:  # fmt: skip
    """Work on all shards but the first, which loads the encoders, and note what that took."""
    work_on(todo[0])
    began, used = time.perf_counter(), cpu_seconds()
    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(work_on, todo[1:]))
    lasted, used = time.perf_counter() - began, cpu_seconds() - used
    clips = sum(shard.inputs for shard in todo[1:])
    rates.append(Rate(clips / lasted, used / clips, used / lasted))


def measure(folder: Path, params: Params, clips: int, rounds: int) -> dict[str, float | bool]:
    """Return clips per second and CPU of one worker and of two, medians, and the ratio of the rates."""
    write_inputs(folder, params, clips)
    inputs = str(folder / "raw"), folder / "clips", folder / "captions"
    settings = params.latents.model_copy(update={"shard_clips": max(1, clips // 16)})
    rates: dict[int, list[Rate]] = {1: [], 2: []}
    made: list[dict[str, bytes]] = []
    for turn in range(rounds):
        for workers, found in rates.items():
            stage = Latents(*inputs, settings, params.vae, params.text, params.sandbox)
            out = folder / f"latents-{workers}-{turn}"
            earlier = folder / f"{out.name}-earlier"
            run(stage, out, out.with_suffix(".json"), "code", partial(by_threads, workers, found), earlier)
            made.append({path.name: path.read_bytes() for path in out.iterdir()})
    one, two = (Rate(*map(statistics.median, zip(*found, strict=True))) for found in rates.values())
    figures = {f"{name}, {figure}": value for name, rate in (("one", one), ("two", two))
               for figure, value in rate._asdict().items()}  # fmt: skip
    ratio, most = two.clips_per_second / one.clips_per_second, 2 / two.cpu_seconds / one.clips_per_second
    return figures | {"two / one": ratio, "most two / one": most, "equal bytes": all(each == made[0] for each in made)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stiv-workers-") as name:
        figures = measure(Path(name), load_params(ROOT / "params.yaml"), options.clips, options.rounds)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
