"""How long `stiv funnel` takes over many generated score rows, and how much memory.

    python benchmarks/funnel.py --rows 1000000 --rounds 5 --json funnel.json

The rows are made once, in a temporary folder or in --folder. Each round replays the thresholds of params.yaml, with
one of them moved, in one process: opening the table, DuckDB's work, and the funnel made of it. `first` is the first
round, `replay` the median of the others; with --duplicates, near-duplicates are looked for in one more round
(`duplicates`). `command` is the median of as many rounds of `stiv funnel` as it is typed, Python's start and imports
and all. Memory is the process's peak, imports and all.
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
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks import made_tables
from flows.params import load_params
from tasks.clips.funnel import replay
from tasks.clips.settings import ClipSettings, NonNegativeRange
from tasks.storage import tables

ROOT = Path(__file__).parents[1]


def timed(table: Path, settings: ClipSettings) -> tuple[float, float, int]:
    """Replay once: seconds, CPU seconds, clips kept."""
    started, cpu = time.perf_counter(), time.process_time()
    kept = replay(table, settings).funnel[-1]["clips"]
    return time.perf_counter() - started, time.process_time() - cpu, kept


def typed(table: Path) -> tuple[float, int]:
    """Run `stiv funnel` once: seconds, and bytes of memory at most."""
    command = [sys.executable, "-m", "flows", "funnel", "--scores", str(table.parent)]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, command)
    return time.perf_counter() - started, 1024 * used.ru_maxrss


def measure(table: Path, rounds: int, find_twins: bool) -> dict[str, Any]:
    """Replay with a moving threshold."""
    base = load_params(ROOT / "params.yaml").clips.model_copy(update={"duplicate_bits": None})
    moved = [base.model_copy(update={"motion": NonNegativeRange(min=0.1 * n, max=None)}) for n in range(rounds + 1)]
    commands = [typed(table) for _ in range(rounds)]
    (first, *others) = [timed(table, settings) for settings in moved]
    found = {
        "rows": pq.read_metadata(table).num_rows,
        "table_bytes": table.stat().st_size,
        "kept": [first[2], *(other[2] for other in others)],
        "first": first[0],
        "replay": statistics.median(other[0] for other in others),
        "replay_largest": max(other[0] for other in others),
        "replay_cpu": statistics.median(other[1] for other in others),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "command": statistics.median(seconds for seconds, _ in commands),
        "command_largest": max(seconds for seconds, _ in commands),
        "command_peak_bytes": max(peak for _, peak in commands),
    }
    if find_twins:
        seconds, cpu, kept = timed(table, base.model_copy(update={"duplicate_bits": 24}))
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found |= {"duplicates": seconds, "duplicates_cpu": cpu, "duplicates_kept": kept, "duplicates_peak_bytes": peak}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duplicates", action="store_true", help="look for near-duplicates too, once")
    parser.add_argument("--folder", type=Path, help="keep the made table there, and use it again")
    parser.add_argument("--make", action="store_true", help="only make the table")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stiv-funnel-") as temporary:
        folder = options.folder or Path(temporary)
        table = folder / f"scores-{options.rows}" / tables.SCORE_TABLE
        if options.make:
            made_tables.write_scores(table, options.rows)
            return
        if not table.exists():  # by another process, whose memory is not ours
            again = [sys.executable, __file__, "--make", "--rows", str(options.rows), "--folder", str(folder)]
            subprocess.run(again, check=True)
        found = measure(table, options.rounds, options.duplicates)
    for name, value in found.items():
        print(f"{name:24} {value}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
