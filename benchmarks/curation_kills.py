"""Kill the data engine again and again, and compare what it makes with what it makes when nobody disturbs it.

    python benchmarks/curation_kills.py --kills 50 --json curation_kills.json

Two workspaces with the same made videos. In one, the stages videos, shots, scores, clips and captions run once each. In
the other, each is killed (SIGKILL of its whole process tree) at random moments of its work, as often as its share of
the kills, and started again by the same command, until it ends. Compared are the bytes of every table; counted are rows
that stand there twice and files that are not whole.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq
from tqdm import tqdm

from flows.running.server import free_port, server

ROOT = Path(__file__).parents[1]
STAGES = {
    "videos": "probe --source data/raw --out data/videos --report reports/videos.json",
    "shots": "split --source data/raw --videos data/videos --out data/shots --report reports/shots.json",
    "scores": "score --shots data/shots --out data/scores --report reports/scores.json",
    "clips": "select --scores data/scores --out data/clips --report reports/clips.json --docs reports/data_docs",
    "captions": "caption --clips data/clips --out data/captions --report reports/captions.json",
}


def start(folder: Path, env: dict[str, str], stage: str) -> subprocess.Popen:
    with (folder / "log").open("a") as log:
        command = [sys.executable, "-m", "flows", *STAGES[stage].split()]
        return subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL a process and everything below it, as a machine that goes down would."""
    for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def finish(folder: Path, env: dict[str, str], stage: str) -> float:
    """Run a stage to its end; return how long it was at work, from the first file of its work folder on."""
    process, began = start(folder, env, stage), None
    partial = folder / "data" / f"{stage}.partial"
    while process.poll() is None:
        began = began or (time.monotonic() if partial.exists() else None)
        time.sleep(0.01)
    assert process.returncode == 0, (folder / "log").read_text()[-3000:]
    return time.monotonic() - (began or time.monotonic())


def disturb(folder: Path, env: dict[str, str], stage: str, seconds: float, draw: random.Random) -> bool:
    """Start a stage and kill it at a random moment of the `seconds` that its work takes; say whether it was alive."""
    process, partial = start(folder, env, stage), folder / "data" / f"{stage}.partial"
    before = partial.stat().st_mtime_ns if partial.exists() else None
    while process.poll() is None and not (partial.exists() and partial.stat().st_mtime_ns != before):
        time.sleep(0.005)  # until it has opened its work folder again
    time.sleep(draw.uniform(0, seconds))
    if process.poll() is not None:
        return False
    kill_tree(process)
    return True


def tables(folder: Path) -> dict[str, str]:
    """Return the hash of every table."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "data").rglob("*.parquet"))
    }


def doubled(folder: Path) -> int:
    counts: Counter[str] = Counter()
    for stage in ("shots", "scores", "clips", "captions"):
        names = pq.read_table(folder / "data" / stage / f"{stage}.parquet", columns=["clip"])["clip"].to_pylist()
        counts.update(f"{stage} {name}" for name in names)
    return sum(count - 1 for count in counts.values())


def partial(folder: Path) -> list[str]:
    found = (path for path in (folder / "data").rglob("*") if path.suffix in (".tmp", ".partial"))
    return [str(path.relative_to(folder)) for path in found]


def measure(folder: Path, kills: int, seed: int, env: dict[str, str]) -> dict[str, object]:
    """Make both workspaces and compare them."""
    env = env | {"PYTHONPATH": str(ROOT), "GX_ANALYTICS_ENABLED": "false"}
    left_alone, killed = folder / "alone", folder / "killed"
    left_alone.mkdir(parents=True)
    shutil.copy(ROOT / "tests/params.yaml", left_alone / "params.yaml")
    collect = ["collect", "--out", "data/raw", "--report", "reports/corpus.json"]
    subprocess.run([sys.executable, "-m", "flows", *collect], cwd=left_alone, env=env, check=True, capture_output=True)
    shutil.copytree(left_alone, killed)
    lasted = {stage: finish(left_alone, env, stage) for stage in STAGES}
    draw, done, tried = random.Random(seed), 0, 0
    with tqdm(total=kills, unit="kill") as bar:
        for number, stage in enumerate(STAGES):
            share = kills * (number + 1) // len(STAGES) - done
            while share > 0:
                tried += 1
                if disturb(killed, env, stage, lasted[stage], draw):
                    share, done = share - 1, done + 1
                    bar.update()
            finish(killed, env, stage)
    return {
        "kills": done,
        "started": tried,
        "seed": seed,
        "tables": len(tables(left_alone)),
        "equal": tables(killed) == tables(left_alone),
        "rows_twice": doubled(killed),
        "partial_files": partial(killed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "prefect", free_port()) as env:
        found = measure(Path(folder) / "work", options.kills, options.seed, env)
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    sys.exit(not found["equal"] or bool(found["rows_twice"]) or bool(found["partial_files"]))


if __name__ == "__main__":
    main()
