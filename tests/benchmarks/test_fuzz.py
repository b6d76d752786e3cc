"""Broken and hostile files through the stages videos and shots; `benchmarks/fuzz.py` does the same with many more."""

import contextlib
import random
from pathlib import Path

import av
import pytest

from benchmarks import fuzz, mutants, traps
from flows.params import load_params
from tasks.sandbox.pool import Sandbox

GIB = 2**30


@pytest.fixture(scope="module")
def params():
    return load_params(Path(__file__).parents[1] / "params.yaml")


@pytest.fixture
def sandbox(params):
    with Sandbox(params.sandbox) as opened:
        yield opened


def test_forty_broken_videos_each_get_a_verdict_and_nothing_else_happens(tmp_path, params, sandbox, monkeypatch):
    monkeypatch.setenv("SVT_LOG", "1")  # the AV1 encoder's chatter
    figures = fuzz.fuzz(tmp_path, params, sandbox, count=40, seed=1)
    assert sum(sum(found["probe"].values()) for found in figures["verdicts"].values()) == 40
    assert sum(sum(found["split"].values()) for found in figures["verdicts"].values()) == 40
    assert len({verdict for found in figures["verdicts"].values() for verdict in found["probe"]}) > 3
    assert not figures["crashed"], "a decoder that crashes is its own fault, but these files are known not to do that"
    assert (figures["restarts"], figures["changed_originals"]) == (0, 0)
    assert figures["slowest_seconds"] < 8 and figures["peak_bytes"] < GIB


def test_a_mutant_is_the_same_for_the_same_seed_and_is_no_more_the_original():
    content = random.Random(0).randbytes(3000)
    broken = {seed: mutants.mutant(content, seed)[0] for seed in map(str, range(30))}
    assert all(mutants.mutant(content, seed)[0] == broken[seed] for seed in broken)
    assert len(set(broken.values())) == 30 and content not in broken.values()


def test_no_trap_reaches_a_second_file_or_a_socket(tmp_path, params, sandbox):
    figures = fuzz.spring_traps(tmp_path, params, sandbox)
    assert all(verdict.startswith(("rejected", "failed")) for verdict in figures["verdicts"].values())
    assert (figures["second_files_opened"], figures["sockets"]) == (0, 0)
    assert figures["slowest_seconds"] < 20


def careless(path: Path) -> None:
    """Read a video as PyAV does unless told otherwise."""
    with contextlib.suppress(av.error.FFmpegError), path.open("rb") as file, av.open(file, timeout=(2, 2)) as container:
        next(container.decode(video=0))


def test_a_careless_reader_falls_into_the_traps(tmp_path):
    """Else they would prove nothing."""
    with fuzz.set_traps(tmp_path) as (watch, listener):
        careless(tmp_path / "raw" / "ffconcat.mp4")
        careless(tmp_path / "raw" / "m3u8_http.m3u8")
    assert watch.count > 0 and listener.count > 0


def test_what_decodes_to_far_more_than_it_holds_ends_soon_and_small(tmp_path, params, sandbox):
    traps.black_frames(tmp_path / "black.mp4", 96)
    traps.small_claim(tmp_path / "claim.mp4", 4096)
    traps.big_picture(tmp_path / "picture.mp4", 8000)
    found = {name: fuzz.through(tmp_path, f"{name}.mp4", params, sandbox) for name in ("black", "claim", "picture")}
    assert found["black"]["split"] == "rejected expands_too_much"
    assert found["claim"]["probe"] == found["claim"]["split"] == "rejected too_many_pixels"
    assert found["picture"]["probe"] == "rejected codec_not_allowed"
    assert max(result["seconds"] for result in found.values()) < 20 and sandbox.peak_bytes < GIB


def test_hostile_names_are_names_and_no_more(tmp_path, params, sandbox):
    assert len(set(traps.NAMES)) >= 60 and not any("/" in name or "\0" in name for name in traps.NAMES)
    before = sorted(Path().iterdir())
    figures = fuzz.name_files(tmp_path, params, sandbox)
    account = figures["account"]
    assert account["given"] == len(traps.NAMES) == account["ok"] + account["rejected"]
    assert account["reasons"] == {"name_not_text": 1}
    assert figures["new_files"] == 0 and sorted(Path().iterdir()) == before
