import json
import shutil
from pathlib import Path

import pytest

from flows.__main__ import main
from flows.commands.files import judged
from flows.params import load_params
from tasks.demo import corpus
from tasks.sandbox.pool import Sandbox
from tasks.storage import atomic
from tasks.storage.object_cache import ObjectCache
from tasks.videos import sources
from tasks.videos.probe import probe_videos


def lines(capfd) -> list[dict]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_probe_says_of_each_file_what_it_is(capfd, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    main(["probe", str(corpus.packaged_file("bikes")), str(text), str(tmp_path / "gone.mp4")])
    real, playlist, gone = lines(capfd)
    assert Path(real["file"]).name == "bikes.mp4"
    assert (real["status"], real["codec"], real["width"], real["height"]) == ("ok", "h264", 640, 272)
    assert (real["fps"], real["seconds"], real["frames"]) == (25.0, 10.0, 250)
    assert (playlist["status"], playlist["reason"]) == ("rejected", "not_a_video")
    assert (gone["status"], gone["reason"]) == ("failed", "not_found")


def test_probe_rejects_what_the_stage_would_by_the_settings_of_videos(capfd, tmp_path, write_video, moving_frames):
    write_video(tmp_path / "short.mp4", moving_frames(6))
    write_video(tmp_path / "small.mp4", moving_frames(24, pixels=48))
    write_video(tmp_path / "good.mp4", moving_frames(24))
    shutil.copy(tmp_path / "good.mp4", tmp_path / "good.m4v")
    (tmp_path / "empty.m4v").touch()
    names = ["short.mp4", "small.mp4", "good.mp4", "good.m4v", "empty.m4v"]
    main(["probe", *(str(tmp_path / name) for name in names)])
    found = lines(capfd)
    extension = "not_a_video_extension"
    assert [line["reason"] for line in found] == ["too_short", "too_small", None, extension, extension]
    assert [line["status"] for line in found] == ["rejected", "rejected", "ok", "rejected", "rejected"]
    assert found[0]["seconds"] == pytest.approx(0.25)
    videos = load_params().videos
    items = sources.listing(str(tmp_path))
    with Sandbox(load_params().sandbox) as sandbox:
        rows = {
            row["uri"]: row["reason"]
            for row in probe_videos(str(tmp_path), items, videos, sandbox, ObjectCache(tmp_path))
        }
    assert rows == {Path(line["file"]).name: line["reason"] for line in found}


def test_a_forgotten_file_is_no_use_to_probe_either(tmp_path, video_with_cut, sandbox_settings):
    videos = load_params().videos.model_copy(update={"forgotten": [atomic.sha256_file(video_with_cut)]})
    with Sandbox(sandbox_settings) as sandbox:
        [line] = judged([video_with_cut], videos, sandbox)
    assert (line["status"], line["reason"]) == ("rejected", "forgotten")


@pytest.mark.parametrize(("verb", "file"), [("probe", "https://example.org/a.mp4"), ("shots", "s3://bucket/a.mp4")])
def test_an_address_is_no_file_on_this_machine(verb, file):
    with pytest.raises(SystemExit, match=rf"^stiv {verb}: {file} "):
        main([verb, file])


def test_shots_gives_a_line_per_shot_in_seconds_and_frames(capfd):
    main(["shots", str(corpus.packaged_file("bikes"))])
    found = lines(capfd)
    assert [line["end_frame"] for line in found] == [30, 76, 137, 187, 242, 250]
    assert [line["start_frame"] for line in found[1:]] == [line["end_frame"] for line in found[:-1]]
    assert [(line["start"], line["end"]) for line in found[:2]] == [(0.0, 1.2), (1.2, 3.04)]
    assert [line["transition"] for line in found] == ["start", *["cut"] * 5]
    assert [line["reason"] for line in found] == [None] * 5 + ["too_short"]
    assert all(line["motion"] > 0 and 0 <= line["brightness"] <= 1 for line in found)


@pytest.mark.parametrize("verb", ["probe", "shots"])
def test_files_none_of_which_can_be_read_end_with_code_1(capfd, tmp_path, verb):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        main([verb, str(tmp_path / "a.mp4")])
    assert ended.value.code == 1
    [line] = lines(capfd)
    assert (line["status"], line["reason"]) == ("rejected", "empty_file")


def test_no_file_at_all_is_an_error_in_one_line():
    with pytest.raises(SystemExit, match=r"^stiv shots: .*file"):
        main(["shots"])


def test_probe_with_a_source_is_the_stage(capfd):
    with pytest.raises(SystemExit):
        main(["probe", "--source", "data/raw"])
    assert "required: --out, --report" in capfd.readouterr().err
