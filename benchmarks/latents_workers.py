"""Stage latents by one worker of the local engine and by two: clips per second, and whether the bytes are equal.

    python benchmarks/latents_workers.py --clips 96 --rounds 3

with the folder of the repository on PYTHONPATH or the package installed, and on a machine that does nothing else. The
encoders are the embedded ones, on the CPU; videos are made, and decoded in the sandbox as ever.
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

from benchmarks.device import write_inputs
from flows.params import Params, load_params
from tasks.latents.encode import Latents
from tasks.storage.shards import Shard
from tasks.storage.stage import Stage, run

ROOT = Path(__file__).parents[1]


def by_threads(workers: int, rates: list[float], stage: Stage, work_on: Callable[[Shard], None],
               todo: list[Shard]) -> None:  # fmt: skip
    """Work on all shards but the first, which loads the encoders, and note the clips per second."""
    work_on(todo[0])
    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(work_on, todo[1:]))
    rates.append(sum(shard.inputs for shard in todo[1:]) / (time.perf_counter() - began))


def measure(folder: Path, params: Params, clips: int, rounds: int) -> dict[str, float | bool]:
    """Return the clips per second of one worker and of two, medians, and their ratio."""
    write_inputs(folder, params, clips)
    inputs = str(folder / "raw"), folder / "clips", folder / "captions"
    settings = params.latents.model_copy(update={"shard_clips": max(1, clips // 16)})
    rates: dict[int, list[float]] = {1: [], 2: []}
    made: list[dict[str, bytes]] = []
    for turn in range(rounds):
        for workers, found in rates.items():
            stage = Latents(*inputs, settings, params.vae, params.text, params.sandbox)
            out = folder / f"latents-{workers}-{turn}"
            earlier = folder / f"{out.name}-earlier"
            run(stage, out, out.with_suffix(".json"), "code", partial(by_threads, workers, found), earlier)
            made.append({path.name: path.read_bytes() for path in out.iterdir()})
    one, two = (statistics.median(found) for found in rates.values())
    return {"one": one, "two": two, "two / one": two / one, "equal bytes": all(each == made[0] for each in made)}


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
