import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.operations import processes
from tasks.storage import atomic


def test_the_same_run_goes_on_and_another_starts_empty(tmp_path):
    out = tmp_path / "t2i"
    (atomic.open_workdir(out, {"steps": 3}) / "step").write_text("2")
    assert (atomic.open_workdir(out, {"steps": 3}) / "step").read_text() == "2"
    assert not (atomic.open_workdir(out, {"steps": 4}) / "step").exists()


def test_work_without_a_name_is_nobodys(tmp_path):
    out = tmp_path / "t2i"
    work = atomic.open_workdir(out, {"steps": 3})
    (work / "step").write_text("2")
    (work / "run.json").write_text('{"ste')  # as a machine that went down may leave it
    assert not (atomic.open_workdir(out, {"steps": 3}) / "step").exists()


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "table"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic.atomic_write(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with atomic.atomic_write(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["table"]


def test_an_output_replaces_what_was_there(tmp_path):
    out = tmp_path / "t2i"
    out.mkdir()
    (out / "old").touch()
    work = atomic.open_workdir(out, {})
    (work / "product").mkdir()
    (work / "product" / "new").touch()
    atomic.finish(work / "product", out)
    atomic.discard_workdir(out)
    assert [path.name for path in out.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["t2i"]


def test_what_a_killed_process_was_writing_is_not_handed_on(tmp_path):
    product, out = tmp_path / "product", tmp_path / "out"
    product.mkdir()
    write_and_die = """
import os, signal, sys
from pathlib import Path
from tasks.storage import atomic
with atomic.atomic_write(Path(sys.argv[1])) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", write_and_die, str(product / "shard.mp4")])
    assert killed.returncode == -signal.SIGKILL
    assert len(list(product.iterdir())) == 1, "what it leaves"
    with atomic.atomic_write(product / "shard.mp4") as aside:  # the next attempt
        aside.write_text("whole")
    atomic.finish(product, out)
    assert {path.name: path.read_text() for path in out.iterdir()} == {"shard.mp4": "whole"}


def test_a_child_that_fails_is_told_with_its_last_lines():
    lines = []
    script = "print('reading'); raise SystemExit('no such table')"
    with pytest.raises(RuntimeError, match=r"exit code 1 .*reading \| no such table"):
        processes.run([sys.executable, "-c", script], on_line=lines.append)
    assert lines == ["reading", "no such table"]


def test_a_child_does_not_outlive_its_killed_parent(tmp_path):
    told = tmp_path / "pid"
    inner = tmp_path / "child.py"
    inner.write_text(
        f"import os, pathlib, time; pathlib.Path({str(told)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    script = f"import sys; from tasks.operations import processes; processes.run([sys.executable, {str(inner)!r}])"
    parent = subprocess.Popen([sys.executable, "-c", script])
    limit = time.monotonic() + 60
    while not told.exists() or not told.read_text():
        assert time.monotonic() < limit
        time.sleep(0.05)
    child = int(told.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while time.monotonic() < limit:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


def test_all_of_an_output_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    product, out = tmp_path / "product", tmp_path / "out"
    (product / "inside").mkdir(parents=True)
    for file in ("table", "inside/table"):
        (product / file).write_text("rows")
    synced, fsync = [], os.fsync

    def watch(descriptor: int) -> None:
        assert out.exists() == (len(synced) == 4), "it had its name too early"
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    atomic.finish(product, out)
    assert {*synced[:4]} == {str(product / part) for part in (".", "table", "inside", "inside/table")}
    assert synced[4:] == [str(tmp_path)]
