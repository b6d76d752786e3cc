"""The servers of a pipeline, started for real."""

import os
import subprocess
import sys
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


@pytest.mark.parametrize("device", ["nvidiactl", "kfd"])
def test_where_there_is_a_gpu_nothing_is_forked(here, device, tmp_path, monkeypatch):
    (tmp_path / device).touch()
    monkeypatch.setattr(fork_servers, "_DEVICES", tmp_path)
    with fork_servers.started([], os.environ):
        assert FOLDER not in os.environ
