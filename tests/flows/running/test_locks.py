"""Locks of what is made and served: who comes second is told who is there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.running.locks import hold, output
from stiv_model.process_exit import follow_into_end
from tests.holding import holding

ROOT = Path(__file__).parents[3]
HOLDS = """import pathlib, sys
from flows.running.locks import output
with output(pathlib.Path(sys.argv[1]), "select"):
    print("in", flush=True)
    sys.stdin.read()"""


def test_an_output_is_made_by_one_at_a_time_however_it_is_named_and_a_killed_one_stands_in_nobodys_way(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with holding(HOLDS, "data/clips") as first:
        for name in ("data/clips", "data/../data/clips", str(tmp_path / "data/clips")):
            with pytest.raises(ValueError, match=rf"process {first.pid} \(stiv select\) is making {name}"):  # noqa: SIM117
                with output(Path(name), "select"):
                    pass
        with output(Path("data/shots"), "split"):
            pass
    with output(Path("data/clips"), "select"):
        pass
    assert not Path("data").exists(), "the lock is beside nothing that is made"


def test_an_output_is_made_by_one_at_a_time_from_whichever_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with holding(HOLDS, "data/clips") as first:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        with pytest.raises(ValueError, match=rf"process {first.pid} .* is making \.\./data/clips"):  # noqa: SIM117
            with output(Path("../data/clips"), "select"):
                pass


def test_a_name_with_braces_is_told_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with output(Path("a{b}"), "one"), pytest.raises(ValueError, match=r"is making a\{b\}"), output(Path("a{b}"), "two"):
        pass


def test_a_lock_says_who_holds_it_now(tmp_path):
    for name in ("a longer name than the next", "short"):
        with hold(tmp_path / "lock", name, ""):
            assert (tmp_path / "lock").read_text() == f"process {os.getpid()} ({name})\n"


def test_what_was_started_by_a_process_that_has_ended_does_nothing():
    with pytest.raises(RuntimeError, match="process 1, which started this one, has ended"):
        follow_into_end(1)
    code = "import os, time; from stiv_model.process_exit import follow_into_end; follow_into_end(os.getppid()); "
    code += "print(os.getpid(), flush=True); time.sleep(50)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {code!r}]); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    child = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout.read() == b"", f"process {child} holds the pipe until it ends"
