"""The comparisons of docs/recipe.md: what they compute, that they go on where they were, and that the page says it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import recipe, recipe_data, recipe_figures, recipe_report, recipe_training
from benchmarks.recipe_comparisons import Arm, Outcome, comparisons
from benchmarks.recipe_settings import LOOK, Plan, Size
from benchmarks.recipe_units import Unit, missing, run, units
from tasks.demo import shapes
from tasks.scores.quality import quality

TINY = Size(clips=2, held_out=2, compute=1e-5, sampling_steps=1)
MADE_ANEW = {"look_seconds", "commit", "stages"}
EQUAL = set("abcdgh")
"""Comparisons whose arms have the same arithmetic; (e) has the same time, in (f) and (i) arms differ in no step."""


def content(path: Path) -> dict:
    """Return what a result says, without seconds."""
    return {key: value for key, value in json.loads(path.read_text()).items() if key not in MADE_ANEW}


@pytest.fixture(scope="module")
def some() -> list[Unit]:
    """Two arms that share a stage: frames that are filled in, and further training without them."""
    plan = Plan(TINY)
    stiv = plan.videos("stiv", 1, None, clean_frames="first", image_dropout=0.5)
    tup = plan.videos("tup", 1, stiv, clean_frames="every_second", decay=0.5)
    looks = {"video": recipe_figures.Look("refilled"), "words": recipe_figures.Look("words")}
    further = {"video": recipe_figures.Look("t2v")}
    return [Unit("g", Arm("tup", tup, looks), 0, TINY), Unit("g", Arm("further STIV", stiv, further), 0, TINY)]


@pytest.fixture(scope="module")
def made(some, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    assert [line.partition(":")[0] for line in run(some, 1, folder / "root", folder / "results")] == [
        *("clips, large", "captions", "stiv, seed 0", "tup, seed 0"),
        *("(g) tup, seed 0", "(g) further STIV, seed 0"),
    ]
    return folder


def test_a_comparison_of_three_steps_leaves_a_figure_for_every_look(made, some):
    result = some[0].result(made / "results")
    assert result["figures"]["video"]["n"] == 2
    assert result["figures"]["video"]["counts"].keys() >= {"colour", "shape", "direction", "all_right", "same_object"}
    assert result["figures"]["words"]["loss"] > 0
    assert [stage["name"] for stage in result["stages"]] == ["stiv", "tup"]
    assert all(stage["steps"] == 3 and stage["gflop"] > 0 for stage in result["stages"])
    assert len(list((made / "root" / "sheets").glob("*/video.png"))) == 2


def test_what_is_there_is_not_made_again_and_what_is_lost_becomes_the_same(made, some):
    root, results = made / "root", made / "results"
    assert missing(some, root, results) == []
    path, tup = results / some[0].file, some[0].arm.stage
    before, folder = content(path), recipe_training.folder_of(root, tup, 0)
    weights = (folder / "model.safetensors").read_bytes()
    path.unlink()
    (folder / recipe_training.RECORD).unlink()  # killed while it was written
    folder.with_name(f"{folder.name}.scratch").mkdir()  # killed before
    lines = [line.partition(":")[0] for line in run(some, 1, root, results)]
    assert lines == ["tup, seed 0", "(g) tup, seed 0"]
    assert content(path) == before and (folder / "model.safetensors").read_bytes() == weights


def test_a_result_of_other_settings_is_made_again(made, some, tmp_path):
    other = some[1]._replace(arm=some[1].arm._replace(looks={"video": recipe_figures.Look("t2v", scale=3.0)}))
    assert other.result(made / "results") is None
    assert [job.name for job in missing([other], made / "root", made / "results")] == ["(g) further STIV, seed 0"]


@pytest.mark.long
def test_results_do_not_depend_on_how_many_jobs_run(made, some, tmp_path):
    list(run(some, 2, tmp_path / "root", tmp_path / "results"))
    for unit in some:
        assert content(tmp_path / "results" / unit.file) == content(made / "results" / unit.file)


def test_all_arms_of_a_comparison_cost_the_same():
    for letter in EQUAL:
        arms = [arm for arm in comparisons(Size())[letter].arms if "space" not in arm.name]
        totals = [sum(stage.gflop for stage in arm.stage.ancestors()) for arm in arms]
        assert max(totals) < 1.02 * min(totals), letter
    stages = [arm.stage for arm in comparisons(Size())["e"].arms]
    masked, unmasked = (sum(stage.gflop for stage in arm.ancestors()) for arm in stages[:2])
    assert 0.7 < masked / unmasked < 0.95


def test_units_come_seed_by_seed_and_only_those_that_are_asked_for():
    some = units(Size(), 2, "ca")
    assert [(unit.letter, unit.seed) for unit in some] == [("c", 0)] * 3 + [("c", 1)] * 3 + [("a", 0)] * 2 + [
        ("a", 1)
    ] * 2
    assert len({unit.file for unit in units(Size(), 3, "abcdefghi")}) == 3 * sum(
        len(one.arms) for one in comparisons(Size()).values()
    )


def test_the_listing_says_what_is_missing_and_counts_a_shared_stage_once(tmp_path):
    lines = recipe.listing(units(Size(), 1, "c"), tmp_path)
    assert lines[0].startswith("(c) replacement") and lines[0].endswith("missing")
    estimated = [float(line.split(" s estimated")[0].split()[-1]) for line in lines[:3]]
    assert estimated[0] > 2 * estimated[1]
    assert lines[-1].startswith("3 units, 3 missing")


# what is measured


@pytest.fixture(scope="module")
def scene():
    return shapes.scene(0, 0, True, LOOK)


def test_way_is_one_for_the_scene_zero_for_a_still_and_negative_backwards(scene):
    video = recipe_data.frames_of(scene, 64)
    for shown, way in ((video, 1.0), (np.repeat(video[:1], 20, 0), 0.0), (video[::-1], -1.0)):
        found = recipe_figures.motion(shown[None], [scene], video[None])
        assert found["way"] == pytest.approx(way, abs=0.01) and found["tracked"] == 1
    grey = np.full_like(video, 128)
    assert recipe_figures.motion(grey[None], [scene], video[None]) == {"way": 0.0, "jerk": None, "tracked": 0}


def test_a_video_that_jumps_is_less_smooth(scene):
    video = recipe_data.frames_of(scene, 64)
    jumping = video[[0, 3, 2, 5, 4, 7, 6, 9, 8, 11]]
    smooth, rough = (recipe_figures.motion(one[None], [scene], one[None])["jerk"] for one in (video[:10], jumping))
    assert rough > 5 * smooth


def test_the_score_finds_the_clips_that_are_not_spoilt():
    scenes = recipe_data.scenes(20, held_out=False)
    clips = [recipe_data.spoil(recipe_data.frames_of(scene, 64)[9:10], number) for number, scene in enumerate(scenes)]
    scores = [quality(np.ascontiguousarray(clip[0][..., ::-1])) for clip in clips]
    assert (clips[10] == recipe_data.frames_of(scenes[10], 64)[9:10]).all()
    assert np.mean([scores[0], scores[10]]) > 1.2 * np.mean(scores[1:10] + scores[11:])


def test_a_wrong_word_is_another_one_and_its_caption_is_known():
    captions = set(recipe_data.all_captions(TINY))
    for number, scene in enumerate(recipe_data.scenes(2, held_out=True)):
        for word in recipe_data.WORDS:
            other = recipe_data.wrong(scene, word, number)
            assert getattr(other, word) != getattr(scene, word)
            assert shapes.caption(other) in captions and shapes.caption(scene) in captions


# the report


def test_paired_differences_have_the_interval_of_students_t():
    ours, theirs = [0.9, 0.7, 0.8, 0.95], [0.5, 0.6, 0.4, 0.65]
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    found = recipe_report.paired(ours, theirs)
    assert (found.seeds, found.mean) == (4, pytest.approx(0.3))
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    # by hand: differences .2 and .4, deviation sqrt(.02), t = 12.706 for one degree of freedom
    two = recipe_report.paired([0.5, 0.7], [0.3, 0.3])
    assert two.high == pytest.approx(0.3 + 12.7062 * math.sqrt(0.02 / 2), rel=1e-4)
    assert recipe_report.paired([1.0], [0.0]).low == -math.inf
    with pytest.raises(ValueError, match="2 and 1 values: pairs need one of each"):
        recipe_report.paired([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("low", "high", "better", "told"),
    [
        (0.1, 0.3, "higher", "agrees"),
        (0.1, 0.3, "lower", "disagrees"),
        (-0.3, -0.1, "lower", "agrees"),
        (-0.3, -0.1, "higher", "disagrees"),
        (-0.1, 0.3, "higher", "cannot tell"),
        (-math.inf, math.inf, "lower", "cannot tell"),
    ],
)
def test_only_an_interval_on_one_side_of_zero_says_anything(low, high, better, told):
    assert recipe_report.verdict(recipe_report.Difference(3, (low + high) / 2, low, high), better) == told


@pytest.fixture
def results(tmp_path) -> recipe_report.Results:
    """Return results of (a) in which staged has 40, 36, 44 of 48 right, and scratch 10, 12 and no third seed."""
    one = comparisons(Size())["a"]
    for arm, counts in zip(one.arms, ([40, 36, 44], [10, 12]), strict=True):
        for seed, right in enumerate(counts):
            unit = Unit("a", arm, seed, Size())
            figures = {"t2v": {"n": 48, "counts": {"all_right": right}}, "words": {"loss": 0.5, "counts": {}}}
            result = {"comparison": "a", "arm": arm.name, "seed": seed, "settings": unit.settings_sha256}
            result |= {"figures": figures, "stages": [{"name": "t2i", "seconds": 36.0}], "look_seconds": 9.0}
            (tmp_path / unit.file).write_text(json.dumps(result))
    return recipe_report.Results(tmp_path, Size())


def test_outcomes_are_compared_over_the_seeds_that_both_arms_have(results):
    outcome = Outcome("t2v.all_right", "staged", "scratch", "higher")
    found = recipe_report.compare(results, "a", outcome)
    assert (found.seeds, found.mean) == (2, pytest.approx((30 + 24) / 2 / 48))
    assert results.pooled("a", "staged", "t2v.all_right") == (120, 144)
    assert results.pooled("a", "staged", "words.loss") is None
    assert recipe_report.compare(results, "a", Outcome("ti2v.psnr", "staged", "scratch", "higher")) is None


def test_tables_say_what_was_measured_and_what_was_not(results):
    tables = recipe_report.tables(results, Size())
    line = next(line for line in tables["overview"].splitlines() if "(a)" in line)
    assert "+0.56 [-0.23, +1.36] | 2 | **cannot tell**" in line
    assert line.endswith("| 0.04 |")  # five looks of 9 s, and t2i, of 36 s, once for each of three seeds: 153 s
    assert "not measured" in next(line for line in tables["overview"].splitlines() if "(b)" in line)
    assert "| staged | 3 | " in tables["a"]


def test_a_page_without_the_place_of_a_table_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Nothing\n")
    with pytest.raises(ValueError, match="0 places for the table 'overview': it needs one"):
        recipe_report.write(page, tmp_path, Size())


def test_the_page_has_the_tables_of_the_results(tmp_path):
    page = tmp_path / "recipe.md"
    page.write_text(recipe.PAGE.read_text())
    recipe_report.write(page, recipe.RESULTS, recipe.SIZE)
    assert page.read_text() == recipe.PAGE.read_text(), "python -m benchmarks.recipe --report"
