"""The condition matrix: which conditions there are, which of them mean nothing, and what is told of each."""

from tasks.evaluation import matrix
from tasks.evaluation.matrix import Cell
from tests.made_evaluated import SETTINGS, changed, frozen, real_videos, shuffled

SCALES = (1.0, 2.0, 4.0)


def test_every_condition_is_listed_and_those_that_say_nothing_say_why():
    cells = matrix.cells(SCALES)
    assert len(set(cells)) == len(cells) == 5 * 2 * 3 * 3
    assert "there are none" in matrix.meaningless(Cell("T2V", "text", "separate", 2.0), 1, 10)
    assert "the same" in matrix.meaningless(Cell("TI2V", "empty", "text", 2.0), 1, 10)
    assert "nothing is given" in matrix.meaningless(Cell("T2V", "empty", "joint", 2.0), 1, 10)
    for cell in (
        ("T2V", "empty", "text", 1.0),
        ("TI2V", "empty", "joint", 2.0),
        ("upsampling", "text", "separate", 4.0),
    ):
        assert matrix.meaningless(Cell(*cell), 1, 10) is None


def test_conditions_that_cannot_differ_are_made_once():
    assert matrix.same_as(Cell("T2V", "text", "joint", 4.0), SCALES) == Cell("T2V", "text", "text", 4.0)
    assert matrix.same_as(Cell("TI2V", "text", "joint", 1.0), SCALES) == Cell("TI2V", "text", "text", 1.0)
    assert matrix.same_as(Cell("TI2V", "empty", "separate", 4.0), SCALES) == Cell("TI2V", "empty", "separate", 1.0)
    for cell in matrix.cells(SCALES):
        if not matrix.meaningless(cell, 1, 10):
            same = matrix.same_as(cell, SCALES)
            assert matrix.same_as(same, SCALES) == same
            assert matrix.meaningless(same, 1, 10) is None


def test_a_condition_is_told_by_match_fidelity_motion_and_alarms():
    real = [changed(entry, given_frames=(0, 7)) for entry in real_videos(8)]
    found = matrix.measure(real, True, SETTINGS)
    assert (found["n"], found["match"], found["psnr"], found["motion"]) == (8, 1.0, 100.0, 1.0)
    still = matrix.measure([frozen(entry) for entry in real], True, SETTINGS)
    assert still["motion"] == 0
    assert still["psnr"] < 100  # of the last frame
    assert [alarm["name"] for alarm in still["alarms"] if alarm["state"] == "fires"] == ["still video"]
    others = shuffled(real_videos(8))
    assert {one["state"] for one in matrix.measure(others, True, SETTINGS)["alarms"]} == {"quiet", "fires"}
    assert [one["name"] for one in matrix.measure(others, False, SETTINGS)["alarms"]] == ["still video"]


def test_prompts_that_no_judge_knows_have_no_match():
    unknown = [changed(one, colour=None, shape=None, direction=None) for one in real_videos(2)]
    found = matrix.measure(unknown, True, SETTINGS)
    assert (found["match"], found["psnr"]) == (None, None)
