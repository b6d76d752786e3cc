"""What a person sees who gets something wrong: one line with value, place and remedy, and nothing half-written."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flows.__main__ import COMMANDS, FLOWS, main
from flows.running.server import free_port, server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    with server(tmp_path_factory.mktemp("prefect"), free_port()) as env:
        yield env | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def here(tmp_path):
    shutil.copy(ROOT / "tests/params.yaml", tmp_path / "params.yaml")
    return tmp_path


def last_line(env: dict[str, str], folder: Path, *words: str, before: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [*before, sys.executable, "-m", "flows", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return (done.stdout + done.stderr).strip().splitlines()[-1]


def test_a_port_in_use_is_named_with_the_remedy(here, monkeypatch):
    monkeypatch.chdir(here)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=rf"stiv demo: --port {port}: .*in use.*leave --port away"):
            main(["demo", "--port", str(port)])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "which is no folder"),
        (lambda folder: folder.mkdir(), "no file"),
    ],
    ids=["missing", "empty"],
)
def test_a_source_without_videos_is_named(here, prefect, make, said):
    make(here / "videos")
    line = last_line(
        prefect, here, "probe", "--source", "videos", "--out", "data/videos", "--report", "reports/videos.json"
    )
    assert line.startswith("stiv probe: ")
    assert "videos" in line
    assert "source" in line
    assert said in line
    assert not (here / "data/videos").exists()


def test_latents_that_are_not_there_are_named(here, prefect):
    line = last_line(
        prefect,
        here,
        "train",
        "--latents",
        "data/latents",
        "--out",
        "checkpoints/t2i",
        "--curve",
        "t2i.tsv",
        "--recipe",
        "train.t2i",
    )
    assert line == "stiv train: data/latents/latents.parquet does not exist: run stage latents first"
    assert not list(here.glob("checkpoints*"))


def test_a_full_disk_ends_in_one_line_and_leaves_no_output(here, prefect):
    confined = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*confined, "true"], capture_output=True).returncode:
        pytest.skip("this kernel lets no user mount a small disk")
    (here / "data").mkdir()
    script = 'mount -t tmpfs -o size=256k none data && "$@"; code=$?; ls -A data >&2; exit $code'
    collect = [sys.executable, "-m", "flows", "collect", "--out", "data/raw", "--report", "corpus.json"]
    done = subprocess.run(
        [*confined, "sh", "-c", script, "sh", *collect],
        cwd=here,
        env=prefect,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    *_, line, left = done.stderr.strip().splitlines()
    assert line.startswith("stiv collect: ")
    assert "No space left on device" in line
    assert "free some space" in line
    assert left == "raw.partial"


@pytest.mark.parametrize("verb", sorted(FLOWS | COMMANDS))
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert f"usage: stiv {verb}" in told
    assert "Raises:" not in told


@pytest.mark.parametrize("verb", ["collect", "split", "score", "select", "caption", "doctor", "why", "forget"])
def test_help_shows_how_the_command_is_written(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert f"\n  stiv {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", sorted(FLOWS | COMMANDS))
def test_every_verb_has_an_example_in_its_help_and_says_nothing_to_programmers(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    _, _, told = capsys.readouterr().out.partition("\n\n")  # after the usage
    assert f"  stiv {verb}" in told or f" stiv {verb} " in told
    assert "Raises:" not in told
