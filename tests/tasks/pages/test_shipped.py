"""The shipped model beside a run's: same prompts where there are any, both told apart, not shown beside itself."""

import json
from pathlib import Path

import pytest

from tasks.evaluation import judgement as judgements
from tasks.pages import report, shipped
from tests.made_card import write_card
from tests.tasks.pages.test_report import CLIPS, RECIPES, Page, make_inputs, write_samples

STEPS = 3  # of each recipe of the inputs that test_report makes


def make_shipped(folder: Path, steps: int, prompts: str = "") -> Path:
    """Write a shipped model's samples, figures and times; its weights are read by nobody here.

    Args:
        prompts: what stands behind the prompts that `write_samples` writes.
    """
    (folder / shipped.SAMPLES).mkdir(parents=True)
    write_samples(folder / shipped.SAMPLES)
    judgement = write_card(folder / shipped.SAMPLES, folder)
    listed = folder / shipped.SAMPLES / "samples.json"
    content = json.loads(listed.read_text())
    verdicts = {row["id"]: row for row in judgement["verdicts"]}
    rows = [row | {"verdict": verdicts[row["id"]], "prompt": row["prompt"] + prompts} for row in content["samples"]]
    listed.write_text(json.dumps(content | {"samples": [row for row in rows if row["mode"] != "tup"]}))
    (folder / "judge.json").write_text(json.dumps({"modes": judgement["modes"]}))
    trained = {name: {"steps": steps, "seconds": 600.0} for name in RECIPES}
    (folder / shipped.TIMES).write_text(json.dumps({"trained": trained}))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> report.Inputs:
    return make_inputs(tmp_path_factory.mktemp("run"))


@pytest.fixture
def compared(made, tmp_path):
    judgement = judgements.read(made.reports / "card.json")
    samples = report.shown_samples(made.samples, {row["id"]: row for row in judgement["verdicts"]})

    def compare(folder: Path) -> shipped.Comparison | None:
        return shipped.compare(folder, samples, judgement, dict.fromkeys(RECIPES, (STEPS, 1.5)))

    return compare


def test_a_page_tells_the_two_models_apart_by_their_time_of_training(made, tmp_path):
    folder = make_shipped(tmp_path / "shipped", steps=9000)
    text = report.build(made._replace(shipped=folder), tmp_path / "times.json", CLIPS)
    words = Page(text).words.replace("\u00a0", " ")
    each = len(RECIPES)
    ours, theirs = f"{each * 1.5:.1f} s", f"{each * 10:.1f} min"
    assert f"After {ours} of training, and after {theirs}" in words
    assert words.count(f"this run · {ours}") == words.count(f"shipped · {theirs}") == 2
    assert words.index(f"shipped · {theirs}") < words.index("Generated samples")
    ids = [value for name, value in Page(text).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert not [
        one
        for one in Page(text).references
        if not one.startswith(("data:", "#", "data_docs/", "captions/", "evaluation/"))
    ]


def test_samples_of_equal_scenes_stand_side_by_side(compared, tmp_path):
    found = compared(make_shipped(tmp_path / "same", steps=9000))
    assert [(pair.own["id"], pair.shipped["id"], pair.is_same_prompt) for pair in found.pairs["t2v"]] == [
        ("t2v-000", "t2v-000", True)
    ], "the second was not held out"
    assert [pair.is_same_prompt for pair in compared(make_shipped(tmp_path / "other", 9000, "!")).pairs["ti2v"]] == [
        False
    ]


def test_the_figures_of_both_stand_beside_each_other(compared, tmp_path):
    figures = compared(make_shipped(tmp_path / "shipped", steps=9000)).figures
    assert [(one["mode"], one["model"], one["figures"]["n"]) for one in figures] == [
        ("t2v", "this run", 1),
        ("t2v", "shipped", 1),
        ("ti2v", "this run", 1),
        ("ti2v", "shipped", 1),
    ]


def test_a_model_is_not_shown_beside_itself(compared, tmp_path):
    assert compared(make_shipped(tmp_path / "shipped", steps=STEPS)) is None


@pytest.mark.parametrize("missing", ["stage_times.json", "judge.json", "samples/samples.json", "samples/t2v-000.mp4"])
def test_what_a_shipped_folder_lacks_is_named(compared, tmp_path, missing):
    folder = make_shipped(tmp_path / "shipped", steps=9000)
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        compared(folder)
