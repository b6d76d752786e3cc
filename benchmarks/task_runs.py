"""What a shard costs the process that submits it, through a real Prefect server: CPU, and memory that stays.

    python benchmarks/task_runs.py --json task_runs.json

with the folder of the repository on PYTHONPATH or the package installed. Each point is a process of its own, in which a
flow runs a stage by the engine of params.yaml. Its shards do nothing but wait until Prefect has sent its events: real
ones last minutes, and what lies in a queue meanwhile is not what stays. `rows_over_empty` is the driver's CPU for a
further shard of 2,048 wide rows (schema CLIPS) over that of a further shard of one row: what a shard holds must not
travel through Prefect. `bytes_per_run` is by how much the peak of the process's memory rises with each further task
run, from a number of them that is larger than what a stage submits ahead.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from prefect import flow
from prefect.events.worker import EventsWorker

from flows.params import load_params
from flows.running.run_stage import run_stage
from flows.running.server import free_port, server
from flows.running.settings import EngineSettings
from flows.running.task_runner import runner
from tasks.storage import shards, tables
from tasks.storage.stage import Joined, Stage, alone

ROOT = Path(__file__).parents[1]
ROWS = 2048
SECONDS = 0.1
"""A shard takes at least."""
_ENDS: list[tuple[float, int]] = []
"""When each shard ended: this process's CPU seconds, and the peak of its memory in bytes."""


class Nothing(Stage):
    """Shards of wide rows, for which nothing is done.

    Args:
        count: of shards.
        size: rows in each.
    """

    name, verb, unit = "captions", "do nothing for", "rows"  # a stage's name, for the hash of its code
    schema = tables.CLIPS

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        text = pa.array(["a person walks along a street in the evening"] * self.size)
        columns = [
            text
            if field.type == pa.string()
            else pa.nulls(self.size, field.type).fill_null(0.5)
            if field.type == pa.float64()
            else pa.nulls(self.size, field.type)
            for field in self.schema
        ]
        for _ in range(self.count):
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def decides(self) -> dict[str, Any]:
        return {}

    def inputs(self) -> dict[str, Any]:
        return {}

    def shard_size(self) -> float:
        return self.size

    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[shards.Shard], None]]:
        return alone(do_nothing)

    def join(self, work: shards.Work, product: Path) -> Joined:
        return Joined(())


def do_nothing(shard: shards.Shard) -> None:
    time.sleep(SECONDS)
    EventsWorker.instance().wait_until_empty()
    _ENDS.append((time.process_time(), 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


@flow(name="nothing")
def run_nothing(count: int, size: int, folder: Path, engine: EngineSettings) -> None:
    os.chdir(folder)
    run_stage(Nothing(count, size), folder / "out", folder / "report.json", engine)


class Point(NamedTuple):
    """What a process cost."""

    cpu: float
    """Seconds, of the flow."""
    ends: list[tuple[float, int]]
    """As `_ENDS`."""


def point(count: int, size: int, env: dict[str, str]) -> Point:
    """Run the stage in a process of its own."""
    words = [sys.executable, __file__, "--point", str(count), str(size)]
    told = subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout
    return Point(*json.loads(told.splitlines()[-1]))


def measure_here(count: int, size: int) -> Point:
    engine = load_params(ROOT / "params.yaml").engine
    with tempfile.TemporaryDirectory() as name:
        started = time.process_time()
        run_nothing.with_options(task_runner=runner(engine))(count, size, Path(name), engine)
        return Point(time.process_time() - started, _ENDS)


def measure(rounds: int, few: int, more: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"rows_over_empty": [], "cpu_per_shard": [], "bytes_per_run": []}
    with tempfile.TemporaryDirectory() as name, server(Path(name) / "prefect", free_port()) as served:
        env = served | {"PYTHONPATH": str(ROOT)}
        for _ in range(rounds):
            empty, full = point(more, 1, env), point(more, ROWS, env)
            each, peak = (
                (last - one) / (more - few) for one, last in zip(empty.ends[few - 1], empty.ends[-1], strict=True)
            )
            found["cpu_per_shard"].append(each)
            found["rows_over_empty"].append(1 + (full.cpu - empty.cpu) / more / each)
            found["bytes_per_run"].append(peak)
    return {key: [statistics.median(values), min(values), max(values)] for key, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--more", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="write the figures there: median, lowest, highest")
    parser.add_argument("--point", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measure_here(*options.point)))
        return
    figures = measure(options.rounds, options.few, options.more)
    for name, values in figures.items():
        print(f"{name:18} {values[0]:.4g} [{values[1]:.4g}, {values[2]:.4g}]")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
