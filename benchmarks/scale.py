"""What the stages' own processes cost over generated tables of many rows: CPU time and memory, and how both grow.

    python benchmarks/scale.py --rows 10000 100000 1000000 --json scale.json
    python benchmarks/scale.py --points clips report --rows 1000 20000

with the folder of the repository on PYTHONPATH or the package installed. The tables have the columns that the stages
write, and the functions are those of the stages; nothing is decoded, encoded or drawn by a network. Each figure is of
one fresh process, which runs the point twice: first on next to nothing, so that all is imported, then on the rows.
Seconds of CPU (user and system, all threads) are those of the second run; memory is the peak of what is resident in
the whole process, imports and all. Inputs are made by processes of their own. Points: benchmarks/scale_points.py.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.scale_points import POINTS

ROOT = Path(__file__).parents[1]
_FEW = 64  # rows of the run before
MOST_GROWTH, MOST_BYTES, MOST_EXPONENT = 1.5, 700e6, 1.05


class Cost(NamedTuple):
    """Of one run."""

    cpu_seconds: float
    peak_bytes: int


class Required(NamedTuple):
    """One line of the table: what was found, and the most that it may be."""

    point: str
    figure: str
    found: float
    most: float
    unit: str


def work(point: str, folder: Path, rows: int) -> None:
    """Make a point's inputs in this process, or, with 0 rows, run it on those, and print what that cost as JSON."""
    if rows:
        POINTS[point].make(folder, rows)
        return
    run = POINTS[point].load()
    run(folder / "before")
    started = time.process_time()
    run(folder / "inputs")
    print(json.dumps(Cost(time.process_time() - started, _peak_bytes())))


def _peak_bytes() -> int:
    # not ru_maxrss: that begins with what the parent had
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def measured(point: str, folder: Path, rows: int) -> Cost:
    """Run a point on so many rows, in a fresh process.

    Args:
        folder: an empty one, for the inputs.

    Raises:
        CalledProcessError: it failed.
    """
    for name, count in (("before", _FEW), ("inputs", rows)):
        (folder / name).mkdir()
        _call(point, folder / name, count)
    return Cost(*json.loads(_call(point, folder, 0).splitlines()[-1]))


def _call(point: str, folder: Path, rows: int) -> str:
    command = [sys.executable, __file__, "--work", point, str(folder), str(rows)]
    # one thread for products of matrices: idle ones of OpenBLAS spin, which is CPU time and no work
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout


def measure(point: str, rows: Sequence[int], rounds: int, folder: Path) -> dict[str, Any]:
    """Return what a point costs, by number of rows: CPU seconds and bytes at most, medians."""
    found: dict[str, Any] = {}
    for count in rows:
        costs = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(dir=folder) as inputs:
                costs.append(measured(point, Path(inputs), count))
        seconds, peak = (statistics.median(figures) for figures in zip(*costs, strict=True))
        found[str(count)] = {"cpu_seconds": seconds, "peak_bytes": peak}
        print(f"{point:20}{count:>12,} rows {seconds:9.2f} s CPU {peak / 1e6:8.0f} MB", flush=True)
    return found


def required(found: dict[str, dict[str, Any]], rows: Sequence[int]) -> list[Required]:
    """Return what is demanded of the least and the most rows, beside what was found."""
    least, most = min(rows), max(rows)
    lines = []
    for name, costs in found.items():
        few, many = costs[str(least)], costs[str(most)]
        if (further := POINTS[name].further_bytes_per_row) is None:
            exponent = math.log(many["cpu_seconds"] / few["cpu_seconds"]) / math.log(most / least)
            lines.append(Required(name, "memory over that of the fewest rows", many["peak_bytes"] / few["peak_bytes"],
                                  MOST_GROWTH, ""))  # fmt: skip
            lines.append(Required(name, "memory", many["peak_bytes"] / 1e6, MOST_BYTES / 1e6, "MB"))
            lines.append(Required(name, "exponent of CPU time", exponent, MOST_EXPONENT, ""))
        else:
            per_row = (many["peak_bytes"] - few["peak_bytes"]) / (most - least)
            lines.append(Required(name, "further memory a row", per_row, further, "B"))
        if POINTS[name].most_seconds is not None and most == 1_000_000:
            lines.append(Required(name, "CPU time", many["cpu_seconds"], POINTS[name].most_seconds or 0.0, "s"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--points", nargs="+", choices=POINTS, default=list(POINTS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where inputs are made; the default is among temporary files")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)  # point, folder, rows
    options = parser.parse_args()
    if options.work:
        work(options.work[0], Path(options.work[1]), int(options.work[2]))
        return
    with tempfile.TemporaryDirectory(prefix="stiv-scale-", dir=options.folder) as folder:
        found = {point: measure(point, options.rows, options.rounds, Path(folder)) for point in options.points}
    if len(set(options.rows)) > 1:
        lines = required(found, options.rows)
        for line in lines:
            mark = "" if line.found <= line.most else "  MISSED"
            print(f"{line.point:20}{line.figure:38}{line.found:10.3g} (at most {line.most:g} {line.unit}){mark}")
        found["required"] = [line._asdict() for line in lines]  # type: ignore[assignment]
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
