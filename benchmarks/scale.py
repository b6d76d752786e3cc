"""What the stages' own processes cost over generated tables of many rows: CPU time and memory, and how both grow.

    python benchmarks/scale.py --rows 10000 100000 1000000 --json scale.json
    python benchmarks/scale.py --points clips report --rows 1000 20000

with the folder of the repository on PYTHONPATH or the package installed. The tables have the columns that the stages
write, and the functions are those of the stages; nothing is decoded, encoded or drawn by a network. Each figure is of
one fresh process: seconds of CPU (user and system, all threads), less those of a process that imports the same and
does nothing; and the peak of its resident memory, imports and all. Between the points of one row, inputs are made by
processes of their own. Points: benchmarks/scale_points.py.
"""

import argparse
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.scale_points import POINTS

ROOT = Path(__file__).parents[1]
MOST_GROWTH, MOST_BYTES, MOST_EXPONENT = 1.5, 700e6, 1.05


class Cost(NamedTuple):
    """Of one process."""

    cpu_seconds: float
    """Imports and all."""
    peak_bytes: int


class Required(NamedTuple):
    """One line of the table: what was found, and the most that it may be."""

    point: str
    figure: str
    found: float
    most: float
    unit: str


def work(point: str, folder: Path, step: str) -> None:
    """Do one step of a point in this process, and print what it cost as JSON.

    Args:
        step: `make:ROWS` its inputs, `import` what it needs, or `run` it.
    """
    made = POINTS[point]
    if step.startswith("make:"):
        made.make(folder, int(step.removeprefix("make:")))
        return
    run = made.load()
    if step == "run":
        run(folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps(Cost(used.ru_utime + used.ru_stime, _peak_bytes())))


def _peak_bytes() -> int:
    # not ru_maxrss: that begins with what the parent had
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def measured(point: str, folder: Path, step: str) -> Cost:
    """Do one step of a point in a fresh process.

    Raises:
        CalledProcessError: it failed.
    """
    command = [sys.executable, __file__, "--work", point, str(folder), step]
    # one thread for products of matrices: idle ones of OpenBLAS spin, which is CPU time and no work
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return Cost(*json.loads(done.stdout.splitlines()[-1])) if not step.startswith("make:") else Cost(0.0, 0)


def measure(point: str, rows: Sequence[int], rounds: int, folder: Path) -> dict[str, Any]:
    """Return what a point costs: by number of rows, CPU seconds without imports and bytes at most, medians."""
    imports = [measured(point, folder, "import") for _ in range(rounds)]
    empty = statistics.median(cost.cpu_seconds for cost in imports)
    found: dict[str, Any] = {"import_seconds": empty, "import_bytes": max(cost.peak_bytes for cost in imports)}
    for count in rows:
        inputs = folder / f"{point}-{count}"
        inputs.mkdir()
        measured(point, inputs, f"make:{count}")
        costs = [measured(point, inputs, "run") for _ in range(rounds)]
        found[str(count)] = {
            "cpu_seconds": statistics.median(cost.cpu_seconds for cost in costs) - empty,
            "peak_bytes": statistics.median(cost.peak_bytes for cost in costs),
        }
        print(f"{point:20}{count:>12,} rows {found[str(count)]['cpu_seconds']:9.2f} s CPU "
              f"{found[str(count)]['peak_bytes'] / 1e6:8.0f} MB", flush=True)  # fmt: skip
        shutil.rmtree(inputs)
    return found


def required(found: dict[str, dict[str, Any]], rows: Sequence[int]) -> list[Required]:
    """Return what is demanded of the least and the most rows, beside what was found."""
    least, most = min(rows), max(rows)
    lines = []
    for name, costs in found.items():
        few, many = costs[str(least)], costs[str(most)]
        exponent = math.log(many["cpu_seconds"] / few["cpu_seconds"]) / math.log(most / least)
        if (further := POINTS[name].further_bytes_per_row) is None:
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
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)  # point, folder, step
    options = parser.parse_args()
    if options.work:
        work(options.work[0], Path(options.work[1]), options.work[2])
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
