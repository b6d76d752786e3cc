"""`stiv long`: how long it is, that it goes on after a kill as if there had been none, and what is refused."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from flows.__main__ import main
from flows.commands.long import frames_of
from stiv_model.encoders.video_file import read_video

SMALL = ("--num-inference-steps", "1", "--guidance-scale", "1", "--fps", "8")
ASKED = ("--prompt", "a red circle moves left", "--seconds", "1.75", *SMALL)  # 14 frames: 5 windows of 4, the last cut


@pytest.fixture(scope="module")
def here(named, tmp_path_factory) -> Path:
    """A folder with a long video that was made without a stop, by one thread as the one that is killed."""
    folder, threads = tmp_path_factory.mktemp("long"), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.set_num_threads(1)
        main(["long", *ASKED, "--pipeline", str(named), "--out", "whole.mp4"])
        torch.set_num_threads(threads)
    return folder


def refused(*words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["long", *words])
    assert "\n" not in str(stop.value.code)
    return str(stop.value.code)


def test_all_frames_are_there_and_nothing_is_left_beside_the_video(here, named, monkeypatch):
    monkeypatch.chdir(here)
    record = json.loads(Path("whole.json").read_text())
    assert len(read_video(Path("whole.mp4"))) == 14
    assert record["command"] == "long" and record["options"]["seconds"] == 1.75
    assert record["asked"]["stride_frames"] == 3 * record["stride_frames"], "of the key frames"
    assert not Path("whole.mp4.partial").exists()
    main(["long", "--again", "whole.json", "--out", "same.mp4"])
    assert Path("same.mp4").read_bytes() == Path("whole.mp4").read_bytes()


def test_the_frames_between_key_frames_have_a_text_of_their_own_which_the_record_says(here, named, monkeypatch):
    monkeypatch.chdir(here)
    main(["long", *ASKED, "--between-prompt", "", "--pipeline", str(named), "--out", "silent.mp4"])
    assert json.loads(Path("silent.json").read_text())["options"]["between_prompt"] == ""
    silent, whole = (read_video(Path(name)) for name in ("silent.mp4", "whole.mp4"))
    assert not np.array_equal(silent, whole)


def _killed_after(windows: int, words: list[str], part: Path) -> None:
    """Make a video in a process of its own, and kill it by SIGKILL once it has kept so many windows."""
    fork = multiprocessing.get_context("fork").Process(target=_make, args=(words,))
    fork.start()
    for _ in range(6000):
        if len(list(part.glob("window-*.npy"))) >= windows or not fork.is_alive():
            break
        time.sleep(0.005)
    assert fork.pid is not None
    os.kill(fork.pid, signal.SIGKILL)
    fork.join()
    assert fork.exitcode == -signal.SIGKILL, "it was not done yet"


def _make(words: list[str]) -> None:
    torch.set_num_threads(1)  # those of the parent are not in its copy
    main(words)


def _goes_on(words: list[str], out: Path, windows: int, capfd) -> None:
    part = out.with_name(f"{out.name}.partial")
    _killed_after(windows, words, part)
    assert not out.exists()
    assert "(options.seed differs)" in refused(*words[1:], "--seed", "1"), "it stays what it was begun as"
    kept = {each.name: each.stat().st_mtime_ns for each in part.glob("*.npy")}
    assert len([name for name in kept if name.startswith("window")]) >= windows
    capfd.readouterr()
    main(words)
    assert f"goes on after {len([name for name in kept if name.startswith('window')])} of 5 windows" in (
        capfd.readouterr().err
    )
    assert not part.exists()


def test_a_killed_video_goes_on_at_the_next_window_and_is_the_same(here, named, monkeypatch, capfd):
    monkeypatch.chdir(here)
    _goes_on(["long", *ASKED, "--pipeline", str(named), "--out", "killed.mp4"], Path("killed.mp4"), 2, capfd)
    assert Path("killed.mp4").read_bytes() == Path("whole.mp4").read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_a_video_killed_anywhere_is_the_same_twenty_times_of_twenty(here, named, monkeypatch, capfd, seed):
    monkeypatch.chdir(here)
    windows, out = random.Random(seed).randint(1, 4), Path(f"killed-{seed}.mp4")
    _goes_on(["long", *ASKED, "--pipeline", str(named), "--out", str(out)], out, windows, capfd)
    assert out.read_bytes() == Path("whole.mp4").read_bytes()


def test_what_another_request_began_is_refused_and_begins_anew_when_asked(here, named, monkeypatch):
    monkeypatch.chdir(here)
    words = ["--prompt", "a", "--seconds", "0.5", *SMALL, "--pipeline", str(named), "--out", "other.mp4"]
    Path("other.mp4.partial").mkdir()
    Path("other.mp4.partial/run.json").write_text('{"command": "long", "threads": 1}')
    said = refused(*words)
    assert "other.mp4.partial holds the begin of another video (asked differs)" in said and "--restart" in said
    main(["long", *words, "--restart"])
    assert len(read_video(Path("other.mp4"))) == 4
    Path("mine.mp4.partial").mkdir()
    Path("mine.mp4.partial/notes.txt").write_text("mine")
    said = refused(*ASKED, "--pipeline", str(named), "--out", "mine.mp4", "--restart")
    assert "holds no parts of a video" in said and Path("mine.mp4.partial/notes.txt").exists()


def test_a_prompt_for_each_key_frame_says_the_length(here, named, monkeypatch):
    monkeypatch.chdir(here)
    Path("way.txt").write_text("a red circle moves left\na red circle moves right\n")
    main(["long", "--prompts", "way.txt", *SMALL, "--pipeline", str(named), "--out", "way.mp4"])
    assert len(read_video(Path("way.mp4"))) == 4
    record = json.loads(Path("way.json").read_text())
    assert record["options"]["key_prompts"] == ["a red circle moves left", "a red circle moves right"]
    said = refused("--prompts", "way.txt", "--seconds", "2", *SMALL, "--pipeline", str(named), "--out", "no.mp4")
    assert "2 prompts are given, but 16 frames in windows of 4 have 6 key frames" in said


@pytest.mark.parametrize(
    ("seconds", "fps", "frames"), [(16, Fraction(8), 128), (15.974, Fraction(24000, 1001), 383), (0.25, Fraction(8), 2)]
)
def test_seconds_are_whole_frames(seconds, fps, frames):
    assert frames_of(seconds, fps) == frames


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (16.3, "--seconds is 16.3, which at 8 frames per second are 130.40 frames: use 16.25 or 16.375"),
        (0.1, "use 0.25 or 0.375"),
        (-1, "use 0.25 or 0.375"),
    ],
)
def test_seconds_that_are_no_whole_frames_are_refused_with_the_two_nearest(seconds, said):
    with pytest.raises(ValueError, match=said):
        frames_of(seconds, Fraction(8))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt", "a"), "the length is not said: --seconds, or --prompts FILE"),
        (("--seconds", "2"), "no prompt is given"),
        (("--prompt", "a", "--seconds", "2", "--video", "a.mp4"), "--video a.mp4: a long video begins with text"),
        (("--prompt", "a", "--seconds", "2", "--last-image", "a.png"), "--last-image a.png: a long video begins"),
        (("--prompt", "a", "--seconds", "2", "--num-frames", "2"), "a window of 2 frames has none between"),
        (("--prompt", "a", "--seconds", "2", "--num-frames", "5"), "the temporal patch is 2: use 4 or 6"),
        (("--again", "whole.json", "--seconds", "2"), "leave --seconds out"),
        (("--again", "whole.json", "--between-prompt", ""), "leave --between-prompt out"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_one_line(here, named, monkeypatch, words, said):
    monkeypatch.chdir(here)
    assert said in refused(*words, "--pipeline", str(named), "--out", "refused.mp4")
    assert not Path("refused.mp4.partial").exists()


def test_a_disk_without_room_is_told_before_anything_is_made(here, named, monkeypatch):
    monkeypatch.chdir(here)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
        said = refused("--prompt", "a", "--seconds", "2", *SMALL, "--pipeline", str(named), "--out", "full.mp4")
    assert "has 0 MB free, and a video of 16 frames takes " in said
    assert not Path("full.mp4.partial").exists()


@pytest.mark.long
def test_memory_does_not_grow_with_the_windows(named, tmp_path, monkeypatch):
    """Resident memory when window 10 of 10 is there, against window 2, in a process of its own."""
    monkeypatch.chdir(tmp_path)
    words = ["long", "--prompt", "a", "--seconds", "3.875", *SMALL, "--pipeline", str(named), "--out", "long.mp4"]
    child = multiprocessing.get_context("spawn").Process(target=main, args=(words,))
    child.start()
    memory: dict[int, int] = {}
    while 10 not in memory and child.is_alive():
        there = len(list(Path("long.mp4.partial").glob("window-*.npy")))
        if there not in memory:
            memory[there] = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
        time.sleep(0.001)
    child.join()
    assert child.exitcode == 0
    assert np.isclose(memory[10], memory[2], rtol=0.05), memory
