"""Captioners of the backend `embedded`, as the stage asks them."""

import pyarrow.parquet as pq
import pytest

from stiv_model.captioner import files
from stiv_model.captioner.captioner import load_captioner
from tasks.captions.settings import EmbeddedSettings
from tasks.demo import shapes
from tasks.demo.train_captioner import CENTRAL, still_scene
from tests.made_clips import Workspace, by


def embedded(kind="video_llm", **changes) -> EmbeddedSettings:
    known = {"kind": kind, "name": kind.partition("_")[0], "backend": "embedded", "frames": 4}
    return EmbeddedSettings.model_validate(known | changes)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Workspace(tmp_path, 6)
    scenes = [still_scene(1000, number, False, CENTRAL) for number in range(6)]
    made.stills = dict(zip(made.clips, (stills for _, stills in scenes), strict=True))
    made.scenes = [scene for scene, _ in scenes]
    made.write_stills("shapes")
    return made


@pytest.mark.parametrize("kind", ["video_llm", "frames_llm"])
def test_every_clip_has_the_sentence_of_the_network_and_its_row_says_which(workspace, kind):
    rows = workspace.run(by(embedded(kind)), shots="shapes")
    network = load_captioner()
    describe = network.describe if kind == "video_llm" else network.describe_merged
    for row, scene, stills in zip(rows, workspace.scenes, workspace.stills.values(), strict=True):
        assert row["text"] == row["short"] == row["raw"] == describe(stills)
        assert shapes.said(row["text"]).colour == scene.colour
        assert (row["status"], row["captioner"]) == ("ok", kind.partition("_")[0])
        assert (row["model"], row["frames"]) == (f"captioner@{files.sha256_of(files.EMBEDDED)}", 4)
        assert (row["temperature"], row["prompt_sha256"], row["seed"], row["max_tokens"]) == (0.0, None, None, None)


def test_fewer_frames_are_those_in_the_middle_of_equal_parts(workspace):
    rows = workspace.run(by(embedded(frames=2)), shots="shapes")
    for row, stills in zip(rows, workspace.stills.values(), strict=True):
        assert (row["text"], row["frames"]) == (load_captioner().describe([stills[1], stills[3]]), 2)


def test_a_clip_whose_stills_are_no_pictures_is_failed_and_the_others_are_not(workspace):
    first, second, *_ = workspace.clips
    workspace.stills[first] = [still[:-9] for still in workspace.stills[first]]
    workspace.stills[second] = []
    workspace.write_stills("broken")
    rows = workspace.run(by(embedded(), max_failed_fraction=0.5), shots="broken")
    assert [row["reason"] for row in rows] == ["malformed", "malformed", None, None, None, None]
    assert pq.read_table("captions/captions.parquet").num_rows == 6


def test_more_frames_than_it_takes_are_refused_before_anything_is_captioned(workspace):
    with pytest.raises(ValueError, match="frames of video is 5, but the embedded captioner takes 4"):
        workspace.run(by(embedded(frames=5)), shots="shapes")


def test_the_two_ways_stand_side_by_side_under_names_of_their_own():
    settings = by(embedded(), embedded("frames_llm"), fallback="next")
    assert [one.name for one in settings.models] == ["video", "frames"]
    with pytest.raises(ValueError, match="video twice"):
        by(embedded(), embedded("frames_llm", name="video"), fallback="next")
