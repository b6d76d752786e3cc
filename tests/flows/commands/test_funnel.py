"""`stiv funnel` as a person types it, and the rewriting of params.yaml."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.__main__ import main
from flows.edit_params import merged, override, read_preset, rewrite
from flows.params import check_params, load_params
from tasks.clips.settings import BestSettings
from tasks.storage import tables
from tests.made_stills import write_stills

ROOT = Path(__file__).parents[3]
FILES = [ROOT / "params.yaml", ROOT / "tests/params.yaml", *sorted((ROOT / "infra/params").glob("*.yaml"))]
PRESETS = sorted(path.stem for path in (ROOT / "infra/selections").glob("*.yaml"))


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A folder with params.yaml, the presets, and four scored shots that differ in motion."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "infra/selections", tmp_path / "infra/selections")
    (tmp_path / "data/scores").mkdir(parents=True)
    (tmp_path / "data/shots").mkdir()
    even = dict.fromkeys(tables.SCORES.names)
    for field in tables.SCORES:
        even |= {field.name: 0.5} if str(field.type) == "double" else {}
    even |= {"aesthetic": 8.0, "temporal_consistency": 0.99, "text_area": 0.0, "flicker": 0.0, "black_bars": 0.0}
    even |= {"clarity": 0.7}
    even |= {"status": "ok", "width": 640, "height": 640, "orientation": "square", "colours": ["red"]}
    even |= {"start_pts": 0, "end_pts": 3600, "time_base": "1/1", "frozen": 0.0, "video_hash": bytes(32)}
    rows = [even | {"clip": f"a{number}", "motion": motion} for number, motion in enumerate((0.05, 0.5, 0.7, 0.9))]
    tables.write_rows(tmp_path / "data/scores/scores.parquet", rows, tables.SCORES)
    write_stills(tmp_path / "data/shots", {row["clip"]: [b"jpeg"] * 4 for row in rows})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys, *words: str) -> dict:
    main(["funnel", *words, "--json"])
    return json.loads(capsys.readouterr().out)


def test_a_set_value_counts_and_changes_no_file(workspace, capsys):
    before = (workspace / "params.yaml").read_bytes()
    assert told(capsys)["clips"] == 3
    assert told(capsys, "--set", "clips.motion.min=0.6", "clips.motion.max=0.8")["clips"] == 1
    assert (workspace / "params.yaml").read_bytes() == before


def test_twins_are_counted_when_asked_for(workspace, capsys):
    assert told(capsys)["duplicates"] is False
    found = told(capsys, "--duplicates")
    assert (found["clips"], found["duplicates"]) == (1, True)
    assert found["funnel"][-1]["step"] == "near_duplicate"


def test_the_next_stages_cost_follows_the_clips_and_the_rate(workspace, capsys):
    one, three = told(capsys, "--set", "clips.motion.min=0.8"), told(capsys, "--clips-per-hour", "6")
    assert three["latent_bytes"] == 3 * one["latent_bytes"] > 0
    assert (one["encode_hours"], three["encode_hours"]) == (None, 0.5)


def test_a_preset_sets_many_values_and_set_has_the_last_word(workspace, capsys):
    found = told(capsys, "--preset", "sft", "--set", "clips.best.clips=1")
    assert [step["step"] for step in found["funnel"]][-1] == "best"
    assert (found["funnel"][-1]["clips"], found["funnel"][-1]["lost"]) == (1, 2)


def test_the_sheet_shows_shots_on_both_sides_and_the_figure_is_a_file(workspace, capsys):
    main(["funnel", "--sheet", "out/sheet.html", "--figure", "out/funnel.svg"])
    sheet = (workspace / "out/sheet.html").read_text()
    assert "<b>0.05</b> a0" in sheet
    assert "<b>0.5</b> a1" in sheet
    assert (workspace / "out/funnel.svg").read_text().startswith("<svg xmlns=")
    assert "s: 3" not in capsys.readouterr().out


def test_write_changes_the_values_and_not_one_other_byte(workspace, capsys):
    before = (workspace / "params.yaml").read_text()
    main(["funnel", "--set", "clips.motion.min=0.65", "clips.best={clips: 20, by: quality}", "--write"])
    expected = before.replace("motion: {min: 0.1, max: null}", "motion: {min: 0.65, max: null}", 1)
    expected = expected.replace("  best: null  ", "  best: {clips: 20, by: quality}  ", 1)
    assert (workspace / "params.yaml").read_text() == expected != before
    assert load_params().clips.best == BestSettings(clips=20, by="quality")
    assert "dvc repro clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, needed",
    [
        (
            ["--set", "clips.motion.mim=1"],
            "--set is clips.motion.mim=1: clips.motion has no key mim: did you mean min?",
        ),
        (["--set", "clips.nosuch.min=1"], "--set is clips.nosuch.min=1: clips has no key nosuch: its keys are motion"),
        (["--set", "clips.nsfw.max=0.2"], "such as --set clips.nsfw.min=null clips.nsfw.max=0.2"),
        (["--set", "clips.motion.min=x"], "funnel: --set clips.motion.min=x: clips.motion.min: Input should be"),
        (["--set", "scores.x=1"], "--set is scores.x=1: scores has no key x: its keys are shard_shots"),
        (["--set", "clips.motion.min=9", "clips.motion.max=1"], "nothing would be kept"),
        (["--set", "clips.best.clips=5"], "such as --set clips.best.clips=5 clips.best.by=..."),
        (["--preset", "nothing"], "it is one of footage, pretraining, sft"),
        (["--clips-per-hour", "0"], "--clips-per-hour is 0"),
        (["--downsampling", "0"], "--downsampling is 0, which does not divide latents.height 64"),
        (["--downsampling", "-8", "--scores", "data/none"], "--downsampling is -8"),
        (["--scores", "data/none"], "data/none/scores.parquet does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(workspace, words, needed):
    before = (workspace / "params.yaml").read_bytes()
    with pytest.raises(SystemExit) as caught:
        main(["funnel", *words, "--write"])
    assert needed in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (workspace / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name + path.stem)
def test_every_preset_fits_every_params_file_and_can_be_written_there(path, preset, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = path.read_text()
    values = yaml.safe_load(text)
    values["clips"] = merged(values["clips"], read_preset(preset))
    check_params(values, path)
    written = rewrite(text, {"clips": values["clips"]})
    assert yaml.safe_load(written) == values
    kept = [line.split("#")[-1] for line in text.splitlines() if "#" in line]
    assert [line.split("#")[-1] for line in written.splitlines() if "#" in line] == kept


def test_nothing_to_change_changes_nothing():
    text = (ROOT / "params.yaml").read_text()
    assert rewrite(text, yaml.safe_load(text)) == text


def test_values_of_several_lines_and_unknown_keys_are_left_to_the_hand():
    with pytest.raises(ValueError, match=r"clips\.list\b"):
        rewrite("clips:\n  list:\n    - 1  # one\n", {"clips": {"list": [2]}})
    with pytest.raises(ValueError, match=r"clips\.other\b"):
        rewrite("clips:\n  a: 1\n", {"clips": {"other": 2}})


def test_a_mapping_on_one_line_may_get_new_keys():
    assert rewrite("a: {b: 1}  # why\nc: 2\n", {"a": {"b": 1, "d": 0.5}}) == "a: {b: 1, d: 0.5}  # why\nc: 2\n"


def test_assignments_are_yaml_and_keep_their_neighbours():
    old: dict[str, Any] = {"motion": {"min": 0.4, "max": None}, "orientations": ["square"]}
    said = ["clips.motion.max=2", "clips.orientations=[portrait]", "clips.best=null", "source=videos"]
    new = override({"clips": old, "source": "data/raw"}, said)
    clips = {"motion": {"min": 0.4, "max": 2}, "orientations": ["portrait"], "best": None}
    assert new == {"clips": clips, "source": "videos"}
    assert old["motion"]["max"] is None
