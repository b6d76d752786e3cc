import hashlib
import json
import shutil
import wave
from contextlib import nullcontext, suppress
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks import traps
from tasks.demo import corpus
from tasks.sandbox.pool import Sandbox
from tasks.storage import atomic, stage, tables
from tasks.storage.object_cache import ObjectCache
from tasks.videos import sources
from tasks.videos.probe import Videos, probe_videos
from tasks.videos.settings import VideoSettings
from tests import odd_videos

SETTINGS = VideoSettings(
    extensions=[".mp4", ".mkv", ".webm", ".avi"],
    min_seconds=0.5,
    max_seconds=10,
    hdr="tone_map",
    min_side=64,
    max_caption_characters=100,
    max_failed_fraction=0.5,
    shard_files=128,
    forgotten=[],
)


@pytest.fixture(scope="module")
def sandbox(sandbox_settings):
    with Sandbox(sandbox_settings) as opened:
        yield opened


def row_of(path: Path, sandbox: Sandbox, settings: VideoSettings = SETTINGS) -> dict:
    """Probe the one file in a folder of its own."""
    rows = probe_videos(
        str(path.parent), sources.listing(str(path.parent)), settings, sandbox, ObjectCache(path.parent / ".cache")
    )
    return next(row for row in rows if row["uri"] == path.name)


def verdict(path: Path, sandbox: Sandbox, settings: VideoSettings = SETTINGS) -> tuple[str, str | None]:
    row = row_of(path, sandbox, settings)
    return row["status"], row["reason"]


def test_a_video_has_its_identity_size_rate_length_and_caption(tmp_path, video_with_cut, sandbox):
    path = Path(shutil.copy(video_with_cut, tmp_path / "a.mp4"))
    (tmp_path / "a.txt").write_text("a square\n")
    row = row_of(path, sandbox)
    assert (row["status"], row["codec"], row["width"], row["height"]) == ("ok", "h264", 96, 96)
    assert (row["fps"], row["seconds"]) == (24.0, pytest.approx(2.0))
    assert row["video"] == atomic.sha256_file(path)
    assert row["caption"] == "a square"


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4")])
def test_other_containers_and_codecs_are_read(tmp_path, write_video, moving_frames, sandbox, suffix, codec):
    row = row_of(write_video(tmp_path / f"a.{suffix}", moving_frames(24), codec=codec), sandbox)
    assert (row["status"], row["seconds"]) == ("ok", pytest.approx(1.0, abs=0.05))


@pytest.mark.parametrize(("hdr", "reason"), [("tone_map", None), ("reject", "hdr")])
def test_high_dynamic_range_is_used_or_rejected_as_asked(tmp_path, sandbox, hdr, reason):
    settings = SETTINGS.model_copy(update={"hdr": hdr})
    row = row_of(odd_videos.hdr(tmp_path / "a.mp4", odd_videos.film()[:25], "hlg"), sandbox, settings)
    assert row["reason"] == reason
    assert (row["transfer"], row["primaries"], row["colour_range"]) == ("arib-std-b67", "bt2020", "limited")
    standard = row_of(odd_videos.write(tmp_path / "b.mp4"), sandbox, settings)
    assert (standard["reason"], standard["transfer"]) == (None, None)


def test_one_archived_object_costs_its_row_and_not_the_stage(tmp_path, bucket, sandbox):
    path = odd_videos.write(tmp_path / "a.mp4")
    bucket.upload_file(str(path), "in/a.mp4")
    bucket.upload_file(str(path), "in/b.mp4", ExtraArgs={"StorageClass": "GLACIER"})
    bucket.put_object(Key="in/c.mp4", Body=path.read_bytes() + bytes(1))
    bucket.put_object(Key="in/d.mp4", Body=path.read_bytes() + bytes(2))
    bucket.put_object(Key="in/d.txt", Body=b"words", StorageClass="GLACIER")
    items = sources.listing(f"s3://{bucket.name}/in")
    rows = probe_videos(f"s3://{bucket.name}/in", items, SETTINGS, sandbox, ObjectCache(tmp_path / "cache"))
    assert [(row["status"], row["reason"]) for row in rows] == [
        ("ok", None),
        ("failed", "archived"),
        ("ok", None),
        ("failed", "archived"),
    ]


def test_an_empty_file_is_rejected(tmp_path, sandbox):
    (tmp_path / "a.mp4").touch()
    assert verdict(tmp_path / "a.mp4", sandbox) == ("rejected", "empty_file")


PLAYLISTS = {
    "text": "this is no video\n" * 100,
    "ffconcat": "ffconcat version 1.0\nfile {target}\n",
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45000 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_text_named_mp4_is_rejected_and_opens_nothing_else(tmp_path, video_with_cut, sandbox, kind):
    """Were the playlist followed, it would be a readable video."""
    target = Path(shutil.copy(video_with_cut, tmp_path / "target.mp4"))
    path = tmp_path / "a.mp4"
    path.write_text(PLAYLISTS[kind].format(target=target))
    assert verdict(path, sandbox) == ("rejected", "not_a_video")


def test_a_file_that_only_begins_like_a_video_has_failed(tmp_path, sandbox):
    (tmp_path / "a.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(range(256)) * 20)
    assert verdict(tmp_path / "a.mp4", sandbox) == ("failed", "unreadable")


def test_a_file_with_sound_only_is_rejected(tmp_path, sandbox):
    source = tmp_path / "tone.wav"
    with wave.open(str(source), "wb") as file:
        file.setparams((1, 2, 8000, 8000, "NONE", ""))
        file.writeframes((np.sin(np.arange(8000) / 5) * 9000).astype("<i2").tobytes())
    with av.open(str(source)) as tone, av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for frame in tone.decode(audio=0):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert verdict(tmp_path / "a.mp4", sandbox) == ("rejected", "no_video_stream")


def test_a_file_that_breaks_off_has_failed(tmp_path, write_video, moving_frames, sandbox):
    whole = write_video(tmp_path / "whole.mkv", moving_frames(96)).read_bytes()
    (tmp_path / "whole.mkv").unlink()
    moved = tmp_path / "faststart.mp4"
    with av.open(str(moved), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width = stream.height = 96
        stream.pix_fmt = "yuv420p"
        for picture in np.random.default_rng(0).integers(0, 255, (48, 96, 96, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    path = tmp_path / "a.mp4"
    path.write_bytes(moved.read_bytes()[: moved.stat().st_size // 2])
    assert verdict(path, sandbox) == ("failed", "truncated")
    path.write_bytes(whole[:200])
    assert verdict(path, sandbox)[0] == "failed"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"min_seconds": 3.0}, "too_short"),
        ({"max_seconds": 1.0}, "too_long"),
        ({"min_side": 128}, "too_small"),
        ({"extensions": [".mov"]}, "not_a_video_extension"),
    ],
)
def test_what_is_outside_the_settings_is_rejected(tmp_path, video_with_cut, sandbox, change, reason):
    path = Path(shutil.copy(video_with_cut, tmp_path / "a.mp4"))
    assert verdict(path, sandbox, SETTINGS.model_copy(update=change)) == ("rejected", reason)


@pytest.mark.parametrize(
    ("change", "verdict_wanted"),
    [
        ({"max_size_bytes": 1000}, ("rejected", "too_many_bytes")),
        ({"max_pixels": 96 * 95}, ("rejected", "too_many_pixels")),
        ({"max_frames": 10}, ("rejected", "too_many_frames")),
    ],
)
def test_what_is_beyond_the_fence_is_not_used(tmp_path, video_with_cut, sandbox_settings, change, verdict_wanted):
    path = Path(shutil.copy(video_with_cut, tmp_path / "a.mp4"))
    with Sandbox(sandbox_settings.model_copy(update=change | {"workers": 1})) as narrow:
        assert verdict(path, narrow) == verdict_wanted


def run(source: Path | str, out: Path, sandbox: Sandbox, shards_only: int | None = None) -> tables.Account | None:
    """Do the stage's work, or only the first shards of it, as if it had been killed then."""
    videos = Videos(str(source), SETTINGS, sandbox.settings, lambda _: nullcontext(sandbox))

    def run_shards(declared, work_on, parts):
        stage.in_turn(declared, work_on, [part for part in parts if not part.is_done][:shards_only])
        if shards_only:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        (account,) = stage.run(videos, out, out.with_suffix(".json"), "code", run_shards, out.parent / "earlier")
        return account
    return None


@pytest.fixture
def raw(tmp_path, write_video, moving_frames) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(3):
        write_video(folder / f"{number}.mp4", moving_frames(24, x_step=number))
    shutil.copy(folder / "0.mp4", folder / "2-again.mp4")
    (folder / "0.txt").write_text("still")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    return folder


def test_every_file_has_one_row_and_the_account_balances(tmp_path, raw, sandbox):
    account = run(raw, tmp_path / "videos", sandbox)
    assert account[1:5] == (7, 3, 4, 0)
    assert account.reasons == {"duplicate": 1, "empty_file": 1, "not_a_video": 1, "not_a_video_extension": 1}
    rows = tables.read_rows(tmp_path / "videos" / "videos.parquet", tables.VIDEOS)
    assert [row["uri"] for row in rows if row["reason"] == "duplicate"] == ["2-again.mp4"]
    assert not (tmp_path / "videos.partial").exists()


def join_listed(folder: Path, sandbox: Sandbox, rows: list[dict], write_video, moving_frames) -> dict[str, dict]:
    """Join the rows of a list whose files all have the same bytes; return what was said of each."""
    first = write_video(folder / rows[0]["uri"], moving_frames(24))
    for row in rows[1:]:
        shutil.copy(first, folder / row["uri"])
    (folder / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    account = run(folder / "list.jsonl", folder / "videos", sandbox)
    assert account[1:5] == (len(rows), 1, len(rows) - 1, 0)
    return {row["uri"]: row for row in tables.read_rows(folder / "videos" / "videos.parquet", tables.VIDEOS)}


def test_of_equal_files_the_one_that_says_most_is_kept(tmp_path, sandbox, write_video, moving_frames, caplog):
    rows = [
        {"uri": "a.mp4"},
        {"uri": "b.mp4", "caption": "a car"},
        {"uri": "c.mp4", "caption": "a car", "licence": "CC0"},
        {"uri": "d.mp4", "caption": "a car", "source_url": "https://example.org/d"},
    ]
    found = join_listed(tmp_path, sandbox, rows, write_video, moving_frames)
    assert {uri: row["reason"] for uri, row in found.items()} == {
        "a.mp4": "duplicate",
        "b.mp4": "duplicate",
        "c.mp4": None,
        "d.mp4": "duplicate",
    }
    assert (found["c.mp4"]["caption"], found["c.mp4"]["licence"]) == ("a car", "CC0")
    assert "contradict" not in caplog.text


def test_equal_files_that_contradict_each_other_are_named(tmp_path, sandbox, write_video, moving_frames, caplog):
    rows = [{"uri": "a.mp4", "caption": "a car"}, {"uri": "b.mp4", "caption": "a boat"}]
    found = join_listed(tmp_path, sandbox, rows, write_video, moving_frames)
    assert [row["reason"] for row in found.values()] == [None, "duplicate"]
    [said] = [record.getMessage() for record in caplog.records if "contradict" in record.message]
    assert said.endswith("used is what is said of 'a.mp4', not 'b.mp4' (caption)")


def test_rows_of_a_list_that_name_no_file_stop_nothing(tmp_path, sandbox, video_with_cut):
    shutil.copy(video_with_cut, tmp_path / "a.mp4")
    shutil.copy(video_with_cut, tmp_path / "b.mp4")
    rows = [{"uri": "a.mp4"}, {"uri": "b.mp4", "caption": "\ud83c"}, {"uri": "n\0.mp4"}, {"uri": "\ud83c.mp4"}]
    rows.append({"uri": "x" * 5000})
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    account = run(tmp_path / "list.jsonl", tmp_path / "videos", sandbox)
    assert account.reasons == {"name_not_text": 2, "caption_not_text": 1, "not_found": 1}


def test_a_killed_stage_goes_on_to_the_same_bytes(tmp_path, raw, sandbox):
    run(raw, tmp_path / "videos", sandbox, shards_only=2)
    assert not (tmp_path / "videos").exists()
    run(raw, tmp_path / "videos", sandbox)
    run(raw, tmp_path / "again", sandbox)
    table = "videos.parquet"
    assert (tmp_path / "videos" / table).read_bytes() == (tmp_path / "again" / table).read_bytes()


def test_too_many_broken_files_stop_the_stage(tmp_path, write_video, moving_frames, sandbox):
    folder = tmp_path / "raw"
    folder.mkdir()
    write_video(folder / "good.mp4", moving_frames(24))
    for name in "abc":
        (folder / f"{name}.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom" + name.encode() * 50)
    with pytest.raises(ValueError, match=r"3 of 4 videos failed.*videos\.max_failed_fraction = 0\.5"):
        run(folder, tmp_path / "videos", sandbox)
    assert not (tmp_path / "videos").exists()


def test_nothing_usable_stops_the_stage(tmp_path, sandbox):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.mp4").touch()
    with pytest.raises(ValueError, match=r"none of 1 videos is usable \(empty_file 1\)"):
        run(folder, tmp_path / "videos", sandbox)


def test_objects_for_which_there_is_no_room_are_opened_all_the_same_and_go(tmp_path, raw, sandbox, bucket):
    for path in raw.iterdir():
        bucket.upload_file(str(path), f"in/{path.name}")
    source, cache = f"s3://{bucket.name}/in", ObjectCache(tmp_path / "cache", 1)
    rows = probe_videos(source, sources.listing(source), SETTINGS, sandbox, cache)
    here = probe_videos(str(raw), sources.listing(str(raw)), SETTINGS, sandbox, cache)
    assert [row | {"uri": row["uri"].removeprefix(f"{source}/")} for row in rows] == here
    assert sum(row["status"] == "ok" for row in rows) > 1
    assert [path.name for path in cache.folder.iterdir()] == [".lock"]


def test_a_bucket_gives_the_rows_of_the_same_folder(tmp_path, raw, sandbox, bucket):
    for path in raw.iterdir():
        bucket.upload_file(str(path), f"in/{path.name}")
    source = f"s3://{bucket.name}/in"
    run(raw, tmp_path / "local", sandbox)
    run(source, tmp_path / "remote", sandbox)
    local, remote = (
        tables.read_rows(tmp_path / name / "videos.parquet", tables.VIDEOS) for name in ("local", "remote")
    )
    assert [row | {"uri": row["uri"].removeprefix(f"{source}/")} for row in remote] == local


def test_a_forgotten_video_is_refused_wherever_it_turns_up(tmp_path, raw, sandbox):
    forgotten = hashlib.sha256((raw / "0.mp4").read_bytes()).hexdigest()
    settings = SETTINGS.model_copy(update={"forgotten": [forgotten]})
    rows = probe_videos(str(raw), sources.listing(str(raw)), settings, sandbox, ObjectCache(tmp_path))
    assert {row["uri"]: row["reason"] for row in rows if row["video"] == forgotten} == {
        "0.mp4": "forgotten",
        "2-again.mp4": "forgotten",
    }


def test_a_video_that_decodes_to_unusually_much_is_named(tmp_path, sandbox, caplog):
    """59 MB in 30 kB."""
    traps.many_frames(tmp_path / "still.mp4", 600, pixels=256)
    row = row_of(tmp_path / "still.mp4", sandbox, SETTINGS.model_copy(update={"max_seconds": 60}))
    assert row["status"] == "ok" and "'still.mp4'" in caplog.text
    caplog.clear()
    row_of(Path(shutil.copy(corpus.packaged_file("bikes"), tmp_path / "bikes.mp4")), sandbox)
    assert "'bikes.mp4'" not in caplog.text
