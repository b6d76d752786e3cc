"""The scores are those that the STIV paper prints, by the convention that made them and by no other."""

import json

import pytest

from tasks.evaluation.vbench.conventions import convention
from tasks.evaluation.vbench.scores import as_json, normalised, score, table
from tests.tasks.evaluation.vbench import published


def scores(cells: tuple[str, str], dimensions: tuple[str, ...], name: str) -> tuple[list[float], list[float]]:
    printed, raw = published.row(cells, dimensions)
    return printed, list(score(raw, convention(name)).groups.values())


@pytest.mark.parametrize("model", published.TEXT_TO_VIDEO)
def test_every_row_of_the_paper_has_the_scores_that_it_prints(model):
    printed, made = scores(published.TEXT_TO_VIDEO[model], published.T2V, "t2v")
    if model == "M-256":  # its Quality is the one cell that does not follow from its dimensions
        assert made[0] == pytest.approx(81.94, abs=0.005) and printed[0] == 82.1
        printed, made = printed[1:], made[1:]
    assert made == pytest.approx(printed, abs=0.1)


@pytest.mark.parametrize("model", published.STARTS)
def test_the_rows_with_two_decimals_too(model):
    printed, made = scores(published.STARTS[model], published.T2V, "t2v")
    assert made == pytest.approx(printed, abs=0.05)  # their dimensions are rounded to one


@pytest.mark.parametrize("model", published.IMAGE_TO_VIDEO)
def test_baselines_of_image_to_video_are_made_by_the_convention_of_2024_and_by_no_other(model):
    printed, made = scores(published.IMAGE_TO_VIDEO[model], published.I2V, "i2v_2024")
    assert made == pytest.approx(printed, abs=0.1)
    _, otherwise = scores(published.IMAGE_TO_VIDEO[model], published.I2V, "i2v_repo")
    assert all(abs(one - other) > 1 for one, other in zip(printed, otherwise, strict=True))


@pytest.mark.parametrize(("name", "known"), [("i2v_repo", [79.5, 93.7, 86.6]), ("i2v_2024", [82.4, 97.7, 90.1])])
def test_one_model_has_other_figures_under_each_convention(name, known):
    _, made = scores(published.STIV_M_512_IMAGE, published.I2V, name)
    assert made == pytest.approx(known, abs=0.05)


def test_a_mean_beyond_the_scale_is_not_clipped():
    assert normalised("motion_smoothness", 0.9989) > 1
    assert normalised("subject_consistency", 0.1) < 0


def test_a_dimension_that_is_missing_is_named_and_never_a_zero():
    _, raw = published.row(published.TEXT_TO_VIDEO["M-512"], published.T2V)
    del raw["color"], raw["scene"]
    with pytest.raises(ValueError, match=r"no total by convention t2v: missing color, scene: .*--partial"):
        score(raw, convention("t2v"))
    found = score(raw, convention("t2v"), is_partial=True)
    assert list(found.groups) == ["quality"] and found.missing == ("color", "scene")
    assert found.groups["quality"] == pytest.approx(82.26, abs=0.005)
    assert "total  " not in table(found) and "missing: color, scene" in table(found)
    del raw["dynamic_degree"]
    with pytest.raises(ValueError, match="no group is whole by convention t2v: missing dynamic_degree, color, scene"):
        score(raw, convention("t2v"), is_partial=True)


def test_the_convention_and_what_it_does_not_count_are_in_both_outputs():
    _, raw = published.row(published.STIV_M_512_IMAGE, published.I2V)
    found = score(raw, convention("i2v_2024"))
    assert table(found).startswith("convention i2v_2024: ") and "not counted by this convention: camera_mo" in table(
        found
    )
    told = json.loads(as_json(found))
    assert told["convention"] == "i2v_2024" and told["not_counted"] == ["camera_motion"] and told["missing"] == []
    assert told["scores"]["total"] == pytest.approx(90.06, abs=0.005)
    assert told["dimensions"]["i2v_subject"]["mean"] == 0.992
