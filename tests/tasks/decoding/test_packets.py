"""What a file shows, and when, is what probing counts and what every decoding pass gives: tests/odd_videos.py."""

import struct
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from flows.params import load_params
from tasks.decoding import cuts, decode, packets, probe
from tasks.decoding.clip_frames import clip_frames
from tasks.decoding.limits import Limits
from tasks.videos import shot_rules
from tests import odd_videos

_CODED = 14  # levels, in the mean, that coding at these rates may change a picture by
_VISIBLE = 24  # levels by which a pixel is seen to be another


class Right(NamedTuple):
    """What a file shows, of the film's 50 frames."""

    film: list[int]
    """Which frames of it."""
    repairs: tuple[str, ...] = ()
    fps: float = 25.0


class Damaged(NamedTuple):
    """Frames as (seed, time, is seen to be another than it was)."""

    kept: set[tuple[int, int, bool]]
    """In shots that are ok."""
    lost: set[tuple[int, int, bool]]
    refused: list[str]
    """What `clip_frames` says of a damaged frame in each stretch of damage."""


ALL = list(range(50))
SLOW = [*range(25), *range(25, 50, 5)]
RIGHT = {
    "plain": Right(ALL),
    "trimmed": Right(ALL[10:]),
    "trimmed_both": Right(ALL[9:41]),
    "slows_down_mkv": Right(SLOW, fps=30 / 2.0),
    "slows_down_mp4": Right(SLOW, fps=30 / 1.84),
    "media_recorder": Right(ALL),
    "cover": Right(ALL),
    "small_first": Right(ALL),
    "small_second": Right(ALL),
    "b_frames_avi": Right(ALL, ("frame_order",)),
    "b_frames_mpeg4": Right(ALL, ("frame_order",)),
    "open_gops_avi": Right(ALL, ("frame_order",)),
    "b_pyramid_avi": Right(ALL, ("frame_order",)),
    "clock_restarts": Right(ALL, ("clock_restarts",)),
    "clock_jumps": Right(ALL, ("clock_restarts",)),
    "clock_restarts_flv": Right(ALL, ("clock_restarts",)),
    "stream": Right(ALL),
    "out_of_step": Right(ALL),
    "m2ts": Right(ALL),
    "late_start_ts": Right(ALL[10:], ("late_start",)),
    "late_start_mkv": Right(ALL[10:], ("late_start",)),
    "open_start": Right(ALL[10:]),
    "open_start_hevc": Right(ALL[10:], ("late_start",)),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, Path]:
    return odd_videos.make(tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="module")
def limits(sandbox_settings) -> Limits:
    return Limits(**{name: getattr(sandbox_settings, name) for name in Limits._fields})


@pytest.fixture(scope="module")
def rules() -> dict:
    return shot_rules.rules_of(load_params().shots) | {"min_seconds": 0.3}


def split(path: Path, limits: Limits, rules: dict) -> tuple[dict, dict]:
    """Probe and cut a file as the stages do."""
    probed = probe.probe(str(path), limits)
    assert probed["status"] == "ok", probed
    known = {"claimed_frames": probed["frames"], "fps": probed["fps"], "repairs": probed["repairs"]}
    return probed, cuts.split(str(path), limits, **known, **rules)


def taken(path: Path, limits: Limits, repairs: list[str], start: int, end: int, frames: int) -> dict:
    return clip_frames(str(path), limits, start, end, frames, 1, odd_videos.HEIGHT, odd_videos.WIDTH, repairs)


def test_every_odd_video_has_a_right_answer(videos):
    assert videos.keys() == RIGHT.keys()


@pytest.mark.parametrize("name", RIGHT)
def test_probe_and_stages_tell_what_is_shown(videos, limits, rules, name):
    right = RIGHT[name]
    probed, found = split(videos[name], limits, rules)
    assert (probed["width"], probed["height"]) == (odd_videos.WIDTH, odd_videos.HEIGHT)
    assert (probed["frames"], tuple(probed["repairs"])) == (len(right.film), right.repairs)
    assert probed["fps"] == pytest.approx(right.fps, rel=0.02)
    assert probed["seconds"] == pytest.approx(len(right.film) / right.fps, abs=0.05)
    assert (found["status"], found["frames"]) == ("ok", probed["frames"])
    shots = found["shots"]
    assert all(before["end_pts"] == after["start_pts"] for before, after in pairwise(shots))
    cut = sum(place < odd_videos.SCENE for place in right.film)
    assert np.cumsum([shot["frames"] for shot in shots if shot["reason"] != "damaged"]).tolist()[-1] <= len(right.film)
    assert cut in np.cumsum([shot["frames"] for shot in shots]).tolist()
    assert [shot["reason"] for shot in shots if shot["reason"] != "damaged"] == [None, None]
    assert sum(shot["frames"] for shot in shots if shot["reason"] == "damaged") <= 2 * ("clock" in name)


@pytest.mark.parametrize("name", RIGHT)
def test_each_frame_is_the_films_wherever_decoding_begins(videos, limits, name):
    """Times are the same from the beginning and after a seek; a frame of the other order would be another picture."""
    right = RIGHT[name]
    repairs = probe.probe(str(videos[name]), limits)["repairs"]
    with decode.open_video(str(videos[name]), limits, repairs) as opened:
        marks = packets.Marks()
        shown = [(frame.pts, frame.to_ndarray(format="rgb24")) for frame in decode.decoded(opened, marks)]
    assert len(shown) == len(right.film)
    for (_, picture), place in zip(shown, right.film, strict=True):
        assert np.abs(picture.astype(int) - odd_videos.frame(place)).mean() < _CODED
    times = [time for time, _ in shown]
    for first in (0, 1, 7, 12, len(times) - 4):
        found = taken(videos[name], limits, repairs, times[first], times[-1] + 1, 3)
        if marks.damaged.isdisjoint(times[first : first + 3]):
            assert found["status"] == "ok", (first, found["reason"])
            for picture, (_, wanted) in zip(found["frames"], shown[first:], strict=False):
                assert np.abs(picture.astype(int) - wanted).max() <= 3  # another scaler, which rounds otherwise
        else:
            assert (found["status"], found["reason"]) == ("failed", "damaged")


def test_a_cover_beside_sound_is_no_video(tmp_path, videos, limits):
    """As what downloads music with its cover leaves it."""
    content = videos["cover"].read_bytes()
    path = tmp_path / "song.mp4"
    path.write_bytes(content.replace(b"vide\0\0\0\0", b"soun\0\0\0\0", 1))  # the handler of the track
    assert probe.probe(str(path), limits)["reason"] == "no_video_stream"


def test_text_is_no_transport_stream():
    assert decode.sniff(Path(__file__).read_bytes()[:2048]) is None
    assert decode.sniff(b"G" * 300) is None
    assert decode.sniff(np.random.default_rng(0).bytes(2048)) is None


def test_a_few_frames_without_a_later_time_are_left_out_and_many_cost_the_video(tmp_path, limits, rules):
    """Two packets of a Matroska file are given the times of those before them; then many are."""
    path = odd_videos.write(tmp_path / "a.mkv", b_frames=0)
    for count, reasons in ((2, [None, None]), (12, ["bad_timestamps"])):
        content = bytearray(path.read_bytes())
        for number in range(1, 2 * count, 2):
            block = struct.pack(">H", number * 1000 // odd_videos.FPS)
            at = content.index(b"\x81" + block)  # of track 1, with its time in the cluster
            content[at + 1 : at + 3] = struct.pack(">H", (number - 1) * 1000 // odd_videos.FPS)
        (tmp_path / "b.mkv").write_bytes(content)
        probed, found = split(tmp_path / "b.mkv", limits, rules)
        assert (probed["frames"], probed["repairs"]) == (50 - count, ["repeated_times"])
        assert [shot["reason"] for shot in found.get("shots", [found])] == reasons


DAMAGED = {"plain.mp4": {}, "short.mp4": {"gop": 10}, "short.mkv": {"gop": 10}, "short.ts": {"gop": 10}}


@pytest.fixture(scope="module", params=DAMAGED)
def damaged(request, tmp_path_factory, limits, rules) -> Damaged:
    """What becomes of four files of a kind in which a few bits are wrong."""
    folder = tmp_path_factory.mktemp("damaged")
    clean = odd_videos.write(folder / request.param, **DAMAGED[request.param])
    pictures = _decoded(clean, limits)
    kept, lost, refused = set(), set(), []
    for seed in range(1, 5):
        path = odd_videos.spoilt(clean, folder / f"spoilt_{request.param}", seed, 8)
        probed, found = split(path, limits, rules)
        spoilt = _decoded(path, limits) if found["status"] == "ok" else {}
        different = {
            time
            for time, picture in spoilt.items()
            if time in pictures and (np.abs(picture - pictures[time]).max(2) > _VISIBLE).mean() > 0.01
        }
        for shot in found.get("shots", []):
            inside = [time for time in spoilt if shot["start_pts"] <= time < shot["end_pts"]]
            bad = different.intersection(inside)
            (kept if shot["status"] == "ok" else lost).update((seed, time, time in bad) for time in inside)
            if shot["reason"] == "damaged" and bad:
                refused.append(taken(path, limits, probed["repairs"], max(bad), inside[-1] + 1, 1)["reason"])
    return Damaged(kept, lost, refused)


def test_shots_that_are_ok_hold_hardly_a_frame_that_is_seen_to_be_damaged(damaged):
    """A decoder of H.264 notices about 99 in 100: what happens to be another picture without an error, nobody can."""
    seen_kept = sum(is_bad for _, _, is_bad in damaged.kept)
    seen_lost = sum(is_bad for _, _, is_bad in damaged.lost)
    assert seen_lost > 20  # else nothing was tried
    assert seen_kept <= 0.1 * seen_lost


def test_what_was_not_touched_is_used(damaged):
    assert sum(not is_bad for _, _, is_bad in damaged.kept) > 20


def test_encoding_refuses_what_is_damaged(damaged):
    assert damaged.refused and set(damaged.refused) == {"damaged"}


def _decoded(path: Path, limits: Limits) -> dict[int, np.ndarray]:
    with decode.open_video(str(path), limits) as opened:
        return {frame.pts: frame.to_ndarray(format="rgb24").astype(int) for frame in decode.decoded(opened)}


def test_damage_ends_at_the_next_key_frame(tmp_path, limits, rules):
    """Between key frames at 0 and 10 nothing is used, and from frame 10 on everything."""
    clean = odd_videos.write(tmp_path / "a.mp4", gop=10, b_frames=0)
    with decode.open_video(str(clean), limits) as opened:
        broken = [packet.pos + packet.size // 2 for packet in opened.container.demux(opened.stream) if packet.size][3]
    content = bytearray(clean.read_bytes())
    content[broken : broken + 8] = bytes(8)
    (tmp_path / "b.mp4").write_bytes(content)
    _, found = split(tmp_path / "b.mp4", limits, rules | {"min_seconds": 0.1})
    assert [(shot["frames"], shot["reason"]) for shot in found["shots"]][:2] == [(3, None), (7, "damaged")]
    assert {shot["reason"] for shot in found["shots"][2:]} == {None}
