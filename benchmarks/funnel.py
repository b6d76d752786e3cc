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

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.params import load_params
from tasks.clips.funnel import replay
from tasks.clips.settings import ClipSettings, NonNegativeRange
from tasks.storage import tables

ROOT = Path(__file__).parents[1]
GROUP = 100_000
COLOURS = np.array(["grey", "blue", "brown", "black", "white", "green", "red", "yellow"])


def group(first: int, count: int, seed: int) -> pa.Table:
    """Return rows as stage scores writes them, with scores that spread over the thresholds."""
    random = np.random.default_rng([seed, first])
    number = np.arange(first, first + count)
    sides = np.array([256, 480, 720, 1080, 2160])[random.integers(0, 5, count)]
    scores = [field.name for field in tables.SCORES if field.type == pa.float64()]
    made = {name: random.beta(2, 2, count) for name in scores}
    made |= {"motion": random.gamma(2, 0.6, count), "aesthetic": 10 * random.beta(5, 3, count)}
    made |= {"text_area": random.beta(1, 12, count), "temporal_consistency": random.beta(20, 1, count)}
    made |= {"flicker": random.beta(1, 30, count), "frozen": random.beta(1, 20, count)}
    made |= {"black_bars": random.beta(1, 20, count), "nsfw": np.full(count, np.nan)}
    videos = [f"{n // 8:064x}" for n in number]
    start, length = 9000 * (number % 8), 100 * random.integers(10, 90, count)
    choice = random.integers(0, 8, (count, 2))
    caption = [f"video {n}: a person walks along a street in the evening" if n % 3 else None for n in number]
    columns = made | {
        "clip": [f"{video[:20]}-{a}-{a + b}" for video, a, b in zip(videos, start, length, strict=True)],
        "video": videos,
        "uri": [f"{video}.mp4" for video in videos],
        "start_pts": start * 30,
        "end_pts": (start + length) * 30,
        "time_base": ["1/90000"] * count,
        "frames": length // 100,
        "transition": np.array(["cut", "fade", "start"])[random.integers(0, 3, count)],
        "status": ["ok"] * count,
        "width": sides * 16 // 9,
        "height": sides,
        "caption": caption,
        "orientation": np.array(["landscape", "portrait", "square"])[random.integers(0, 3, count)],
        "colours": COLOURS[choice].tolist(),
        "video_hash": [row.tobytes() for row in random.integers(0, 256, (count, 32), np.uint8)],
    }
    arrays = [
        pa.array(columns[name], type=kind, from_pandas=True) if name in columns else pa.nulls(count, kind)
        for name, kind in zip(tables.SCORES.names, tables.SCORES.types, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=tables.SCORES)


def make(path: Path, rows: int, seed: int = 0) -> None:
    """Write the table, one row group after another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, tables.SCORES, compression="zstd") as writer:
        for first in range(0, rows, GROUP):
            writer.write_table(group(first, min(GROUP, rows - first), seed))


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
            make(table, options.rows)
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
