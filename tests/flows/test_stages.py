"""DVC as a child of ours."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGE = """import signal
from stiv_model.process_exit import die_with_parent
from tasks.operations import processes
die_with_parent(signal.SIGTERM)  # as flows.__main__ does under DVC
script = "trap 'echo saved >saved; exit 1' TERM; echo >ready; while :; do sleep 0.05; done"
processes.run(["bash", "-c", script])
"""
REPRODUCE = "import os; from flows import stages; stages.reproduce('only', False, dict(os.environ), print)"


@pytest.fixture
def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", "SHELL": "/bin/sh"}


def dvc(folder: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def wait_for(path: Path) -> None:
    limit = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < limit, f"no {path}"
        time.sleep(0.01)


def test_a_stage_saves_its_work_when_the_pipeline_is_killed(tmp_path, environment):
    assert dvc(tmp_path, environment, "init", "-q", "--no-scm").returncode == 0
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text("stages: {only: {cmd: python stage.py, outs: [out]}}")
    pipeline = subprocess.Popen([sys.executable, "-c", REPRODUCE], cwd=tmp_path, env=environment)
    try:
        wait_for(tmp_path / "ready")
    finally:
        pipeline.kill()  # and with it DVC, its child
        pipeline.wait()
    wait_for(tmp_path / "saved")


def test_a_stage_is_made_whose_place_in_dvcs_run_cache_was_left_empty_by_a_kill(tmp_path, environment):
    assert dvc(tmp_path, environment, "init", "-q", "--no-scm").returncode == 0
    (tmp_path / "dep").write_text("one")
    (tmp_path / "dvc.yaml").write_text("stages: {only: {cmd: cp dep out, deps: [dep], outs: [out]}}")
    assert dvc(tmp_path, environment, "repro").returncode == 0
    [note] = [path for path in (tmp_path / ".dvc/cache/runs").rglob("*") if path.is_file()]
    for path in (note, tmp_path / "dvc.lock", tmp_path / "out"):
        path.unlink()
    made = subprocess.run(
        [sys.executable, "-c", REPRODUCE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (made.returncode, (tmp_path / "out").exists()) == (0, True), made.stderr
