"""What Ray costs on one machine: stage shots by `engine: ray` and by `engine: local`, one after the other.

    python benchmarks/engines.py --video footage-1080.mp4 --rounds 2 --json engines.json

Each run cuts copies of one video into shots, four copies to a shard, through a Prefect server that is there. Starting a
cluster costs seconds, whatever the work: so each round runs a few shards and then more, and compares what each further
shard takes. Without --video a clip is made (`benchmarks/curation_clips.py`).
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks import curation_clips
from flows.params import load_params
from flows.running.server import free_port, server
from tasks.sandbox.pool import Sandbox
from tasks.storage import atomic, tables

ROOT = Path(__file__).parents[1]
FEW, MORE, COPIES = 1, 4, 4  # shards, and videos in each


def make(folder: Path, video: Path) -> float:
    """Write copies of the video that differ in their last bytes, and their table; return the seconds of one."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    with Sandbox(load_params().sandbox) as sandbox:
        found = sandbox.call("probe", {"path": str(video)})
    rows = []
    for number in range(MORE * COPIES):
        path = raw / f"{number:03d}.mp4"
        path.write_bytes(video.read_bytes() + b"\x00\x00\x00\x10free" + number.to_bytes(8, "big"))
        rows.append({"uri": path.name, "video": atomic.sha256_file(path), "status": "ok"} | picked(found))
    for count in (FEW, MORE):
        (folder / f"videos{count}").mkdir()
        tables.write_rows(folder / f"videos{count}" / tables.VIDEO_TABLE, rows[: count * COPIES], tables.VIDEOS)
    return found["seconds"]


def picked(found: dict) -> dict:
    return {name: found[name] for name in ("width", "height", "fps", "seconds")}


def run(folder: Path, env: dict[str, str], engine: str, count: int) -> float:
    """Return how long the stage takes."""
    for name in (".cache", "out"):  # or nothing is done a second time
        shutil.rmtree(folder / name, ignore_errors=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["engine"] |= {"kind": engine, "cpus_per_shard": params["sandbox"]["workers"]}
    params["shots"]["shard_seconds"] = 1.01 * COPIES * float(env["VIDEO_SECONDS"])
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    words = ["split", "--source", "raw", "--videos", f"videos{count}", "--out", "out", "--report", "report.json"]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "flows", *words], cwd=folder, env=env, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="an MP4 file")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, server(Path(name) / "prefect", free_port()) as env:
        folder = Path(name) / "work"
        video = options.video or curation_clips.make(Path(name), 1080)
        env = env | {"PYTHONPATH": str(ROOT), "VIDEO_SECONDS": str(make(folder, video))}
        marginal: dict[str, list[float]] = {"local": [], "ray": []}
        for number in range(options.rounds):
            for engine in ("local", "ray") if number % 2 == 0 else ("ray", "local"):
                few, more = (run(folder, env, engine, count) for count in (FEW, MORE))
                marginal[engine].append((more - few) / (MORE - FEW))
                print(f"{engine}: {FEW} shard {few:.1f} s, {MORE} shards {more:.1f} s")
    ratios = [ray / local for ray, local in zip(marginal["ray"], marginal["local"], strict=True)]
    figures = {
        "seconds_per_further_shard": marginal,
        "ray_over_local": [statistics.median(ratios), min(ratios), max(ratios)],
    }
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
