"""The whole road at test size, which two files walk on: workspaces, environments, and what must come out of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import filelock
import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from tasks.storage import atomic

ROOT = Path(__file__).parents[1]
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
RECIPES = ["t2i", "t2v", "stiv", "sft", "unmask_sft", "tasks", "tup"]
BIN = Path(sys.executable).parent
# what must not depend on how often a run was killed
MANIFESTS = {
    "data/videos/videos.parquet": ["uri", "video", "status"],
    "data/shots/shots.parquet": ["clip", "status", "start", "end"],
    "data/clips/clips.parquet": ["clip", "status", "reason"],
    "data/captions/captions.parquet": ["clip", "captioner", "text"],
    "data/latents/latents.parquet": ["clip", "status", "text", "shard", "row", "sha256"],
}


def workspace(folder: Path) -> Path:
    """Copy the project's files, with params.yaml at test size, into a git repository of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "tests/params.yaml", folder / "params.yaml")
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "test size"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def environment(server_environment: dict[str, str], folder: Path) -> dict[str, str]:
    paths = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    quiet = {"DVC_NO_ANALYTICS": "1", "GX_ANALYTICS_ENABLED": "false"}
    identity = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return server_environment | paths | quiet | identity


def run(folder: Path, env: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def manifests(folder: Path) -> dict[str, list[dict]]:
    return {name: pq.read_table(folder / name, columns=columns).to_pylist() for name, columns in MANIFESTS.items()}


class Undisturbed:
    """What a road that nobody killed comes to, made by whichever file needs it first, for all workers of a test run.

    Args:
        factory: of the run's temporary folders.
    """

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        base = factory.getbasetemp()
        shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        self.lock = filelock.FileLock(shared / "undisturbed.lock")
        self._file = shared / "undisturbed.json"

    def keep(self, folder: Path) -> None:
        """Note what a road came to."""
        self._file.write_text(json.dumps(came_to(folder)))

    def kept(self) -> dict[str, Any] | None:
        """Return what was noted, None before that."""
        return json.loads(self._file.read_text()) if self._file.exists() else None


def came_to(folder: Path) -> dict[str, Any]:
    """Return what must not depend on how often a road was killed: rows, and the bits of the first weights."""
    rows = json.loads(json.dumps(manifests(folder), default=str))
    return {"rows": rows, "t2i": atomic.sha256_file(folder / "checkpoints/t2i/model.safetensors")}


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL a process and everything below it, as a machine that goes down would."""
    family = [process.pid, *(member.pid for member in psutil.Process(process.pid).children(recursive=True))]
    for pid in family:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue
    process.wait()
