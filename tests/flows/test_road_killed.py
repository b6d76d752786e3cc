"""The road to the first weights, killed at random points. A file of its own, for another worker than the road's."""

import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from flows import stages
from flows.params import load_params
from flows.running import fork_servers
from stiv_model import fork_server
from tasks.training import launch
from tests.made_road import Undisturbed, came_to, environment, kill_tree, run, workspace

pytestmark = [pytest.mark.road, pytest.mark.timeout(1200)]


def opened(folder: Path) -> set[tuple[str, int]]:
    """Return every stage that has opened its work folder, and when: each attempt writes run.json there."""
    return {(str(path), path.stat().st_mtime_ns) for path in (folder / "data").glob("*.partial/run.json")}


def undisturbed(own: Path, factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the road of another file came to, or, where none has run, one that is made here."""
    made = Undisturbed(factory)
    with made.lock:
        if made.kept() is None:
            folder = workspace(own / "undisturbed")
            run(folder, environment(dict(os.environ), folder), "dvc", "repro", "t2i")
            made.keep(folder)
        return made.kept()


def killed_on_the_way(folder: Path, draw: random.Random, log: Path) -> int:
    """Kill the road to the latents a few times, each within two seconds of a stage's start; return how often."""
    kills = 0
    for _ in range(6):
        before = opened(folder)
        stages.mend()  # as `stiv pipeline` does: DVC stumbles over what a kill left half made
        with log.open("a") as file:
            command = fork_server.command("dvc", "dvc", "repro", "latents")
            process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
            while process.poll() is None and opened(folder) <= before:
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 2))
            if process.poll() is None:
                kill_tree(process)
                kills += 1
    stages.mend()
    return kills


def test_killed_anywhere_the_same_command_goes_on_to_the_same_manifests(tmp_path, tmp_path_factory, monkeypatch):
    folder, log = workspace(tmp_path / "killed"), tmp_path / "killed.log"
    env = environment(dict(os.environ), folder)
    monkeypatch.chdir(folder)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    seed = random.SystemRandom().randrange(10**6)
    with fork_servers.started(stages.in_order(), of_ranks=launch.local_environment(load_params().training)):
        kills = killed_on_the_way(folder, random.Random(seed), log)
        assert kills >= 4, (seed, log.read_text()[-3000:])
        run(folder, dict(os.environ), *fork_server.command("dvc", "dvc", "repro", "t2i"))
    assert came_to(folder) == undisturbed(tmp_path, tmp_path_factory), seed
    assert not list(folder.rglob("*.partial")) and not list(folder.rglob("*.tmp")), seed
