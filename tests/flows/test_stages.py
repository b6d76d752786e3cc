"""DVC as a child of ours."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import stages

ROOT = Path(__file__).parents[2]
STAGE = """import signal
from stiv_model.process_exit import die_with_parent
from tasks.operations import processes
die_with_parent(signal.SIGTERM)  # as flows.__main__ does under DVC
script = "trap 'echo saved >saved; exit 1' TERM; echo >ready; while :; do sleep 0.05; done"
processes.run(["bash", "-c", script])
"""
REPRODUCE = "import os; from flows import stages; stages.reproduce('only', False, dict(os.environ), print)"
FORKED = """import os
from flows import stages
from flows.running import fork_servers
with fork_servers.started([], os.environ):
    stages.reproduce("only", False, dict(os.environ), print)
"""


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


@pytest.mark.parametrize(
    ("code", "number"),
    [(REPRODUCE, signal.SIGKILL), (FORKED, signal.SIGKILL), (FORKED, signal.SIGTERM)],
    ids=["killed", "killed, forked", "asked, forked"],
)
def test_a_stage_saves_its_work_when_the_pipeline_ends(tmp_path, environment, code, number):
    assert dvc(tmp_path, environment, "init", "-q", "--no-scm").returncode == 0
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text("stages: {only: {cmd: python stage.py, outs: [out]}}")
    pipeline = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    try:
        wait_for(tmp_path / "ready")
    finally:
        pipeline.send_signal(number)  # with it DVC ends, its child
        pipeline.wait()
    wait_for(tmp_path / "saved")


def test_a_stage_is_made_although_what_dvc_left_half_made_when_it_was_killed_is_in_the_way(tmp_path, environment):
    assert dvc(tmp_path, environment, "init", "-q", "--no-scm").returncode == 0
    (tmp_path / "dep").write_text("one")
    (tmp_path / "dvc.yaml").write_text("stages: {only: {cmd: cp dep out, deps: [dep], outs: [out]}}")
    assert dvc(tmp_path, environment, "repro").returncode == 0
    [note] = [path for path in (tmp_path / ".dvc/cache/runs").rglob("*") if path.is_file()]
    for path in (note, tmp_path / "dvc.lock", tmp_path / "out"):
        path.unlink()
    (tmp_path / ".dvc/tmp/rwlock").write_bytes(b"")
    made = subprocess.run(
        [sys.executable, "-c", REPRODUCE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (made.returncode, (tmp_path / "out").exists()) == (0, True), made.stderr


def test_a_workspace_without_git_is_refused_at_once_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {only: {cmd: python -m flows doctor, outs: [out]}}")
    for ask in (stages.in_order, lambda: stages.command("only")):
        with pytest.raises(ValueError, match=r"is not in a git repository.*git init.*core\.no_scm"):
            ask()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    assert stages.in_order() == ["only"]


@pytest.mark.parametrize(
    ("text", "said"), [(None, "DVC repository"), ("stages: {only: {", r"dvc\.yaml")], ids=["no DVC", "no YAML"]
)
def test_a_workspace_that_dvc_cannot_read_is_one_line(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / ".dvc").mkdir()
        (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
        (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(ValueError, match=said) as refusal:
        stages.in_order()
    assert "\n" not in str(refusal.value)


def started_by_a_shell(script: str, **environment: str) -> str:
    """Return what `python -m flows doctor --help`, started by a shell as `script` says, prints."""
    command = f"{sys.executable} -m flows doctor --help"
    done = subprocess.run(
        ["bash", "-c", script.format(command)], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def test_a_stage_whose_dvc_was_killed_before_its_first_line_does_nothing():
    killed = "({} &) ; kill -9 $$"  # the shell in between has ended at once, its child has another parent
    assert "the DVC that started this stage is gone" in started_by_a_shell(killed, DVC_STAGE="clips")
    assert "usage: stiv doctor" in started_by_a_shell(killed)  # no stage: nobody's lock
    assert "usage: stiv doctor" in started_by_a_shell("{}; true", DVC_STAGE="clips")


def test_a_child_whose_parent_ended_before_it_was_tied_to_it_ends():
    code = "import sys; from stiv_model.process_exit import die_with_parent; die_with_parent(parent=int(sys.argv[1]))"
    ends = [subprocess.run([sys.executable, "-c", code, str(pid)], cwd=ROOT).returncode for pid in (os.getpid(), 1)]
    assert ends == [0, -signal.SIGKILL]


def test_optional_stages_are_known_to_dvc_once_one_of_them_was_asked_for(tmp_path, environment, monkeypatch):
    assert dvc(tmp_path, environment, "init", "-q", "--no-scm").returncode == 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {only: {cmd: echo >out, outs: [out]}}")
    (tmp_path / "views").mkdir()
    shutil.copy(ROOT / "views/stages.yaml", "views/stages.yaml")
    assert dvc(tmp_path, environment, "repro").returncode == 0
    stages.take_up(["only"])
    assert "up to date" in dvc(tmp_path, environment, "status").stdout
    assert stages.in_order() == ["only"] and "views" in stages.optional()
    stages.take_up(["only", "views"])
    stages.take_up(["views"])
    assert stages.in_order() == ["only"]
    assert "views/dvc.yaml:views" in dvc(tmp_path, environment, "status").stdout
    assert stages.changes("views") is not None
