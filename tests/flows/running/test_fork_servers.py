"""The servers of a pipeline, started for real."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flows.running import fork_servers
from stiv_model.fork_server import FOLDER

ROOT = Path(__file__).parents[3]
STAND_IN = """import sys
from stiv_model import fork_server
fork_server.stand_in(sys.argv[1], sys.argv[2], sys.argv[3:])
sys.exit("nobody stood in")
"""


@pytest.fixture
def here(monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv(FOLDER, raising=False)


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (fork_servers.STAGES, ["flows", "vbench", "prompts", "--dimensions", "color"]),
        (fork_servers.DVC, ["dvc", "--version"]),
    ],
)
def test_what_is_forked_says_what_a_process_of_its_own_says(here, server, words):
    alone = run("-m", *words)
    with fork_servers.started([], os.environ):
        assert run("-c", STAND_IN, server, *words) == alone
        assert run("-m", *words) == alone
    assert FOLDER not in os.environ
    assert alone


@pytest.mark.parametrize("device", ["nvidiactl", "kfd", "dxg"])
def test_where_there_is_a_gpu_nothing_is_forked(here, device, tmp_path, monkeypatch):
    (tmp_path / device).touch()
    monkeypatch.setattr(fork_servers, "_DEVICES", tmp_path)
    with fork_servers.started([], os.environ):
        assert FOLDER not in os.environ


def test_where_there_is_no_place_for_sockets_the_pipeline_goes_on_without(here, tmp_path, monkeypatch, caplog):
    long = tmp_path / ("a" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with fork_servers.started([], os.environ):
        assert FOLDER not in os.environ
    (record,) = caplog.records
    assert "AF_UNIX path too long" in record.getMessage() and str(long) in record.getMessage()
    assert not list(long.iterdir())


def test_what_fails_in_the_block_is_not_taken_for_a_lack_of_sockets(here, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="of the pipeline"), fork_servers.started([], os.environ):
        raise FileNotFoundError("of the pipeline")
    assert FOLDER not in os.environ


def test_the_folders_of_killed_pipelines_are_removed_and_no_others(here, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, time; from flows.running import fork_servers as f\n"
        "with f.started([], os.environ): print(flush=True); time.sleep(60)"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE
    )
    killed.stdout.readline()
    (its,) = tmp_path.iterdir()
    with fork_servers.started([], os.environ):
        assert its.exists()
        assert len(list(tmp_path.iterdir())) == 2
    killed.kill()
    killed.communicate()
    with fork_servers.started([], os.environ):
        assert not its.exists()
    assert not list(tmp_path.iterdir())
