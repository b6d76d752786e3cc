"""The stages that the report, `why` and `forget` go through are those of dvc.yaml."""

from pathlib import Path

import yaml

from flows.running import stage_names

ROOT = Path(__file__).parents[3]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_recipes_are_the_stages_that_make_checkpoints():
    made = tuple(name for name, stage in STAGES.items() if f"checkpoints/{name}" in stage.get("outs", []))
    assert stage_names.recipes() == made


def test_recipes_have_their_settings_in_params():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert {*stage_names.recipes(), "views"} <= {*params["train"]}
    assert "views" in stage_names.optional()


def test_every_stage_keeps_an_account_but_trainings_and_those_that_look_at_samples():
    assert set(STAGES) - {*stage_names.with_account()} == {
        *stage_names.recipes(),
        *("comparison", "samples", "evaluate", "report"),
    }


def test_the_tables_are_those_of_every_account_but_the_raw_videos():
    assert stage_names.with_table() == tuple(name for name in stage_names.with_account() if name != "corpus")


def test_the_report_depends_on_every_account_and_curve_that_it_shows():
    shown = {f"reports/{name}.json" for name in stage_names.with_account()}
    shown |= {f"reports/losses/{name}.tsv" for name in stage_names.recipes()}
    assert shown <= {*STAGES["report"]["deps"]}, "add these to the deps of stage report"


def test_stages_of_other_programs_or_folders_are_left_out(tmp_path, monkeypatch):
    stages = {
        "ours": {"cmd": "python -m flows train --out here", "outs": ["data/ours"]},
        "other": {"cmd": "cp a b", "outs": [{"data/other": {"cache": False}}], "metrics": ["reports/other.json"]},
        "several": {"cmd": ["python -m flows train", "cp a b"]},
        "shell": {"cmd": "echo it's"},
        "each": {"foreach": [1, 2], "do": {"cmd": "python -m flows train --out ${item}"}},
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    monkeypatch.setattr(stage_names, "ROOT", tmp_path)
    assert stage_names.recipes() == ("ours",)
    assert stage_names.commands([*stages, "each@1", "below/dvc.yaml:ours"]) == ["train --out here"]
    assert stage_names.with_table() == ("other",)
