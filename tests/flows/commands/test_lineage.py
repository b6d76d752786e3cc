"""`stiv why` as a person reads it: the thresholds that decided, not those of today."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.__main__ import main
from tasks.storage import tables as manifest

ROOT = Path(__file__).parents[3]
NOTE = "note      params.yaml has changed since the selection: `dvc repro clips` selects anew"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One clip, motion 2.85, and one shot, motion 0.05, rejected by clips.motion.min of params.yaml, 0.1."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    shot: dict[str, Any] = {field.name: 0.5 for field in manifest.CLIPS if str(field.type) == "double"}
    shot |= {"aesthetic": 8.0, "temporal_consistency": 0.99, "text_area": 0.0, "flicker": 0.0, "black_bars": 0.0}
    shot |= {"clarity": 0.7, "seconds": 3.0, "frozen": 0.0, "width": 640, "height": 640, "orientation": "square"}
    shot |= {"video": "v", "uri": "v.mp4", "start": 0.0, "end": 3.0, "frames": 72, "transition": "start"}
    shot |= {"status": "ok", "video_hash": bytes(32)}
    kept, lost = shot | {"clip": "kept", "motion": 2.85}, shot | {"clip": "lost", "motion": 0.05}
    rejected = {"status": "rejected", "reason": "motion_below_min"}
    tables: dict[str, tuple[list[dict[str, Any]], Any]] = {
        "videos": ([{"uri": "v.mp4", "video": None, "status": "rejected"}], manifest.VIDEOS),
        "shots": ([kept, lost], manifest.SHOTS),
        "scores": ([kept, lost], manifest.SCORES),
        "clips": ([kept, lost | rejected], manifest.CLIPS),
    }
    for stage, (rows, schema) in tables.items():
        Path("data", stage).mkdir(parents=True)
        known = [{name: value for name, value in row.items() if name in schema.names} for row in rows]
        manifest.write_rows(Path("data", stage, f"{stage}.parquet"), known, schema)
    return tmp_path


def record(folder: Path) -> None:
    """Write what DVC keeps of stage clips: the settings that it was run with."""
    clips = yaml.safe_load((folder / "params.yaml").read_text())["clips"]
    stages = {"clips": {"params": {"params.yaml": {"clips": clips}}}}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def change(folder: Path, minimum: float) -> None:
    path = folder / "params.yaml"
    path.write_text(path.read_text().replace("motion: {min: 0.1,", f"motion: {{min: {minimum},", 1))


def told(capsys: pytest.CaptureFixture[str], shot: str) -> str:
    main(["why", shot])
    return capsys.readouterr().out


@pytest.mark.parametrize("recorded", [True, False])
def test_thresholds_that_have_not_changed_are_told_without_a_note(workspace, capsys, recorded):
    if recorded:
        record(workspace)
    for shot, motion in (("kept", 2.85), ("lost", 0.05)):
        said = told(capsys, shot)
        assert f"motion {motion}  (at least 0.1)" in said
        assert NOTE not in said


@pytest.mark.parametrize(("shot", "motion", "minimum"), [("kept", 2.85, 3.0), ("kept", 2.85, 0.3), ("lost", 0.05, 0.0)])
def test_the_thresholds_that_decided_are_told_after_a_change(workspace, capsys, shot, motion, minimum):
    record(workspace)
    change(workspace, minimum)
    said = told(capsys, shot)
    assert f"motion {motion}  (at least 0.1)" in said
    assert said.count(NOTE) == 1


def test_without_a_record_thresholds_that_would_have_decided_otherwise_are_not_told(workspace, capsys):
    change(workspace, 3.0)
    said = told(capsys, "kept")
    assert "motion 2.85\n" in said
    assert said.count(NOTE) == 1


def test_a_record_of_an_earlier_run_is_not_taken_for_the_one_that_decided(workspace, capsys):
    """As `stiv select` without DVC leaves it."""
    today = (workspace / "params.yaml").read_bytes()
    change(workspace, 3.0)
    record(workspace)
    (workspace / "params.yaml").write_bytes(today)
    said = told(capsys, "kept")
    assert "motion 2.85  (at least 0.1)" in said
    assert NOTE not in said


def test_a_video_that_could_not_be_split_is_told_with_the_reason_and_what_to_do(workspace, capsys):
    row = {"uri": "broken.mp4", "video": "b", "status": "ok"}
    manifest.write_rows(workspace / "data/videos/videos.parquet", [row], manifest.VIDEOS)
    split = {"video": "b", "status": "failed", "reason": "timeout", "frames": 0, "shots": 0}
    manifest.write_rows(workspace / "data/shots" / manifest.SPLIT_TABLE, [split], manifest.SPLITS)
    said = told(capsys, "broken.mp4")
    assert said.startswith("broken.mp4: ok; in stage shots failed, timeout. ")
    assert "sandbox.seconds" in said
