"""Children that are asked to stop, that fail, and that must not outlive us."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tasks.operations import processes

ROOT = Path(__file__).parents[3]
# asked to stop it takes its time, as ranks that save do; `ready` has its number
SAVES = """trap 'echo heard >heard; sleep 0.4; echo saved >saved; exit 1' TERM
echo $$ >ready
while :; do sleep 0.05; done"""
# as DVC does: it ends at once when it is asked to, and leaves to itself what it started
LEAVES = f"bash -c '{SAVES.replace(chr(39), chr(34))}' & wait"
RUNS = "import sys; from tasks.operations import processes; processes.run(['bash', '-c', sys.argv[1]], on_line=print)"


def wait_until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.01)


def read(path: Path) -> str:
    """Wait for a file with something in it."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text()


def is_running(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # a zombie waits for an init process to look
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def heed_interrupts() -> None:
    """What a shell has put in the background ignores Ctrl-C, and so do its children: `make test &` is such a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start(tmp_path: Path):
    """Start a process that waits for a shell script."""
    started: list[subprocess.Popen] = []

    def start(script: str) -> subprocess.Popen:
        command = [sys.executable, "-c", RUNS, script]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
        )
        started.append(process)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_lines_are_handed_on_and_a_failure_carries_the_last_of_them():
    lines: list[str] = []
    with pytest.raises(RuntimeError, match=r"exit code 3 from .*: 2 \| 3 \| 4 \| 5 \| 6"):
        processes.run(["bash", "-c", "for i in 1 2 3 4 5 6; do echo $i; done; exit 3"], on_line=lines.append)
    assert lines == list("123456")


@pytest.mark.parametrize("script", [SAVES, LEAVES], ids=["a child", "what a child has started"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_request_to_stop_is_passed_on_and_has_its_effect_when_the_work_is_saved(start, tmp_path, script, number):
    process = start(script)
    pid = int(read(tmp_path / "ready"))
    process.send_signal(number)
    read(tmp_path / "heard")  # of two that come at once, Python may hear the second first
    process.send_signal(signal.SIGTERM)  # as who stops a group may do; it is the same request
    assert process.wait(timeout=60) == -(signal.SIGTERM if number == signal.SIGUSR1 else number)
    assert (tmp_path / "saved").exists()
    assert not is_running(pid)


def test_who_asks_again_does_not_wait_for_the_work_to_be_saved(start, tmp_path):
    process = start(
        "trap 'echo heard >heard; sleep 100; echo saved >saved' TERM; echo $$ >ready; while :; do sleep 0.05; done"
    )
    pid = int(read(tmp_path / "ready"))
    process.send_signal(signal.SIGTERM)
    read(tmp_path / "heard")
    time.sleep(processes._ONE_REQUEST_SECONDS)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == -signal.SIGTERM
    assert not (tmp_path / "saved").exists()
    assert not is_running(pid)


def test_a_child_of_a_process_that_is_killed_is_killed_too(start, tmp_path):
    process = start(SAVES)
    pid = int(read(tmp_path / "ready"))
    process.kill()
    wait_until(lambda: not is_running(pid))
    assert not (tmp_path / "saved").exists()


def test_who_ignores_a_signal_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        processes.run(["bash", "-c", "kill -INT $PPID; sleep 0.1"])
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_stage_is_asked_to_stop_when_the_process_that_started_it_is_killed(tmp_path):
    """As `python -m flows` is when DVC is killed: SIGTERM, so that it can save its work."""
    waits = "from stiv_model.process_exit import die_with_parent; import signal; die_with_parent(signal.SIGTERM)\n"
    waits += "from tasks.operations import processes; import sys; processes.run(['bash', '-c', sys.argv[1]])"
    (tmp_path / "stage.py").write_text(waits)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    starts = "import subprocess, sys; subprocess.run([sys.executable, 'stage.py', sys.argv[1]])"
    parent = subprocess.Popen([sys.executable, "-c", starts, SAVES], cwd=tmp_path, env=environment)
    pid = int(read(tmp_path / "ready"))
    parent.kill()
    parent.wait()
    read(tmp_path / "saved")
    wait_until(lambda: not is_running(pid))
