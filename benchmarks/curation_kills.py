"""Kill the data engine again and again, and compare what it makes with what it makes when nobody disturbs it.

    python benchmarks/curation_kills.py --kills 50 --json curation_kills.json
    python benchmarks/curation_kills.py --kills 20 --stages latents --forked --json latents_kills.json

Two workspaces with the same made videos. In one, the stages from videos to latents run once each. In the other, each is
killed (SIGKILL of its whole process tree) at random moments of its work, as often as its share of the kills, and
started again by the same command, until it ends. Compared are the bytes of every file that they make; counted are rows
that stand there twice and files that are not whole. With --forked a stage is a fork of this process, which has imported
what stages import, most of a start; it shows its runs to no Prefect server then.
"""

import argparse
import hashlib
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import nullcontext
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import NoReturn, Protocol

import psutil
import pyarrow.parquet as pq
from tqdm import tqdm

from flows import __main__ as command
from flows.running.server import free_port, server
from tasks.storage.reuse import EARLIER

ROOT = Path(__file__).parents[1]
FORKED = "STIV_BENCHMARK_FORKED"
STAGES = {
    "videos": "probe --source data/raw --out data/videos --report reports/videos.json",
    "shots": "split --source data/raw --videos data/videos --out data/shots --report reports/shots.json",
    "scores": "score --shots data/shots --out data/scores --report reports/scores.json",
    "clips": "select --scores data/scores --out data/clips --report reports/clips.json --docs reports/data_docs",
    "captions": "caption --clips data/clips --shots data/shots --out data/captions --report reports/captions.json "
    "--docs reports/captions_docs",
    "latents": "encode --source data/raw --clips data/clips --captions data/captions --out data/latents "
    "--report reports/latents.json",
}


class Process(Protocol):
    """What is asked of a started stage."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...


class Forked:
    """A stage in a fork of this process."""

    def __init__(self, folder: Path, env: dict[str, str], arguments: list[str]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._run(folder, env, arguments)

    @staticmethod
    def _run(folder: Path, env: dict[str, str], arguments: list[str]) -> NoReturn:
        code = 1
        try:
            os.setsid()
            os.chdir(folder)
            os.environ.update(env)
            log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            for descriptor in (1, 2):
                os.dup2(log, descriptor)
            command.main(arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        return self._waited(os.WNOHANG)

    def wait(self) -> int:
        code = self._waited(0)
        assert code is not None, "it has ended"
        return code

    def _waited(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def start(folder: Path, env: dict[str, str], stage: str) -> Process:
    arguments = STAGES[stage].split()
    if FORKED in env:
        return Forked(folder, env, arguments)
    with (folder / "log").open("a") as log:
        program = [sys.executable, "-m", "flows", *arguments]
        return subprocess.Popen(program, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)


def preloaded(env: dict[str, str]) -> dict[str, str]:
    """Import what the stages do, and return the environment in which they are forked."""
    for arguments in STAGES.values():
        importlib.import_module(command.FLOWS[arguments.split()[0]])
    importlib.import_module("stiv_model.encoders.vae")
    return env | {FORKED: "1", "OMP_NUM_THREADS": "1"}


def kill_tree(process: Process) -> None:
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
    """Start a stage and kill it at a random moment of the `seconds` that its work takes; say whether it was at work.

    One that was not any more is forgotten, and what it made: the next would take that over, and have nothing to do.
    """
    process, partial = start(folder, env, stage), folder / "data" / f"{stage}.partial"
    before = partial.stat().st_mtime_ns if partial.exists() else None
    while process.poll() is None and not (partial.exists() and partial.stat().st_mtime_ns != before):
        time.sleep(0.005)  # until it has opened its work folder again
    time.sleep(draw.uniform(0, seconds))
    if process.poll() is None:
        kill_tree(process)
    if partial.exists():
        return True
    for left in (folder / "data" / stage, folder / EARLIER / stage):
        shutil.rmtree(left, ignore_errors=True)
    return False


def made(folder: Path) -> dict[str, str]:
    """Return the hash of every file that the stages make."""
    files = (path for stage in STAGES for path in sorted((folder / "data" / stage).rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def doubled(folder: Path) -> int:
    counts: Counter[str] = Counter()
    for stage in ("shots", "scores", "clips", "captions", "latents"):
        names = pq.read_table(folder / "data" / stage / f"{stage}.parquet", columns=["clip"])["clip"].to_pylist()
        counts.update(f"{stage} {name}" for name in names)
    return sum(count - 1 for count in counts.values())


def partial(folder: Path) -> list[str]:
    found = (path for path in (folder / "data").rglob("*") if path.suffix in (".tmp", ".partial"))
    return [str(path.relative_to(folder)) for path in found]


def make_workspaces(folder: Path, env: dict[str, str], stages: list[str]) -> tuple[Path, Path]:
    """Make two equal workspaces, in which all is done that comes before the first of some stages."""
    left_alone, killed = folder / "alone", folder / "killed"
    if not left_alone.exists():
        left_alone.mkdir(parents=True)
        shutil.copy(ROOT / "tests/params.yaml", left_alone / "params.yaml")
        program = [sys.executable, "-m", "flows", "collect", "--out", "data/raw", "--report", "reports/corpus.json"]
        subprocess.run(program, cwd=left_alone, env=env, check=True, capture_output=True)
    for stage in takewhile(lambda stage: stage not in stages, STAGES):
        if not (left_alone / "data" / stage).exists():
            finish(left_alone, env, stage)
    shutil.copytree(left_alone, killed)
    return left_alone, killed


def measure(folder: Path, stages: list[str], kills: int, seed: int, env: dict[str, str]) -> dict[str, object]:
    """Make both workspaces and compare them."""
    env = dict(os.environ) | env | {"PYTHONPATH": str(ROOT), "GX_ANALYTICS_ENABLED": "false"}
    left_alone, killed = make_workspaces(folder, env, stages)
    todo = list(dropwhile(lambda stage: stage not in stages, STAGES))
    lasted = {stage: finish(left_alone, env, stage) for stage in todo}
    draw, done, tried, number = random.Random(seed), 0, 0, 0
    with tqdm(total=kills, unit="kill") as bar:
        for stage in todo:
            number += stage in stages
            share = kills * number // len(stages) - done if stage in stages else 0
            while share > 0:
                tried += 1
                if disturb(killed, env, stage, lasted[stage], draw):
                    share, done = share - 1, done + 1
                    bar.update()
            finish(killed, env, stage)
    return {
        "stages": stages,
        "kills": done,
        "started": tried,
        "seed": seed,
        "files": len(made(left_alone)),
        "equal": made(killed) == made(left_alone),
        "rows_twice": doubled(killed),
        "partial_files": partial(killed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="that are killed")
    parser.add_argument("--forked", action="store_true", help="start stages sooner, by forks of this process")
    parser.add_argument("--work", type=Path, help="folder of the workspaces; a temporary one otherwise")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = nullcontext(preloaded({})) if options.forked else server(folder / "prefect", free_port())
        with started as env:
            found = measure(options.work or folder / "work", options.stages, options.kills, options.seed, env)
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    sys.exit(not found["equal"] or bool(found["rows_twice"]) or bool(found["partial_files"]))


if __name__ == "__main__":
    main()
