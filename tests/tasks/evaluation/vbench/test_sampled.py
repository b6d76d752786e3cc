"""A folder of sampled videos: each whole or absent, of one set of settings, known by its hash."""

import json
from pathlib import Path

import pytest

from tasks.evaluation.vbench.sampled import SampledFolder, records
from tasks.evaluation.vbench.suite import planned

SETTINGS = {"sampler": {"steps": 4}, "file": {"crf": 12}}
VIDEOS = planned(dimensions=["color"])[:3]


def opened(out: Path, settings: dict = SETTINGS, shard: str = "1/1") -> SampledFolder:
    return SampledFolder(out, settings, {"torch": "1"}, shard)


def filled(out: Path) -> SampledFolder:
    folder = opened(out)
    for video in VIDEOS[:2]:
        folder.add(video, lambda path, video=video: path.write_text(video.name))
    return folder


def test_what_is_there_is_known_again_by_any_shard_and_the_folder_holds_videos_only(tmp_path):
    filled(tmp_path / "out")
    assert opened(tmp_path / "out", shard="2/8").present(VIDEOS) == {video.name for video in VIDEOS[:2]}
    assert sorted(path.name for path in (tmp_path / "out/videos").iterdir()) == [video.name for video in VIDEOS[:2]]
    (first, _) = records(tmp_path / "out")
    assert first["seed"] == VIDEOS[0].seed and first["prompt"] == VIDEOS[0].prompt


def test_other_settings_are_refused_with_what_differs(tmp_path):
    filled(tmp_path / "out")
    with pytest.raises(ValueError, match=r"out was made with sampler\.steps 4, and this is 8: name a new folder"):
        opened(tmp_path / "out", {**SETTINGS, "sampler": {"steps": 8}})


def test_a_kill_between_record_and_name_leaves_the_video_absent(tmp_path):
    folder = opened(tmp_path / "out")

    def killed(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.add(VIDEOS[0], killed)
    with (tmp_path / "out/records/1-of-1.jsonl").open("a") as log:
        log.write('{"name": "half a li')
    folder = opened(tmp_path / "out")
    assert folder.present(VIDEOS) == set() and not list((tmp_path / "out/videos").iterdir())
    folder.add(VIDEOS[0], lambda path: path.write_text("whole"))
    assert opened(tmp_path / "out").present(VIDEOS) == {VIDEOS[0].name}


def test_a_video_that_was_changed_or_that_nobody_recorded_is_refused(tmp_path):
    folder = filled(tmp_path / "out")
    (folder.videos / VIDEOS[0].name).write_text("another")
    with pytest.raises(ValueError, match="is not as it was made: its sha256 is another"):
        folder.present(VIDEOS)
    (folder.videos / VIDEOS[0].name).unlink()
    assert folder.present(VIDEOS) == {VIDEOS[1].name}
    (folder.videos / VIDEOS[2].name).write_text("brought here")
    with pytest.raises(ValueError, match="is there, and no shard has recorded it"):
        folder.present(VIDEOS)


def test_a_video_of_a_process_that_began_at_the_same_moment_with_other_settings_is_refused(tmp_path):
    filled(tmp_path / "out")
    (tmp_path / "out/sampling.json").unlink()
    for name in ("videos", "records"):
        (tmp_path / "out" / name).rename(tmp_path / name)
    opened(tmp_path / "out", {**SETTINGS, "sampler": {"steps": 8}})  # whose manifest was the last one
    for name in ("videos", "records"):
        for path in (tmp_path / name).iterdir():
            path.rename(tmp_path / "out" / name / path.name)
    folder = opened(tmp_path / "out", {**SETTINGS, "sampler": {"steps": 8}})
    with pytest.raises(ValueError, match="was made with other settings, by a process of the same time"):
        folder.present(VIDEOS)


def test_a_folder_of_something_else_stays_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files and no sampling.json: name a new folder"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "sampling.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="is not what this command writes"):
        opened(tmp_path)
