"""Every score stands still while its shot is encoded again, or has half or twice its size: within 5 %.

By benchmarks/stability.py, which does the same with many more shots: through the stages shots and scores as they are.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import stability, stability_shots
from benchmarks.stability import LEAST, WITHIN, Change
from benchmarks.stability_shots import Shot
from flows.params import Params, load_params
from tasks.demo import corpus
from tasks.scores.stage import Scorer

ROOT = Path(__file__).parents[3]
KNOWN = {
    # A head turns one way and the other, in 176 x 144 at crf 28: by a fifth of a pixel
    ("carphone_pristine", "motion_x"): 0.17,
}
"""What does not stand still within 5 %, and how far it moves; docs/scores.md has more."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the sandbox: with several, OpenCV's motion vectors are not the same each time."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    yield
    cv2.setNumThreads(before)


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def scorer(params: Params) -> Scorer:
    assert params.scores.text_detector == "rapidocr"
    return Scorer(params.scores)


def packaged(name: str, first: int, count: int) -> Shot:
    return Shot(name, stability_shots.frames(corpus.packaged_file(name), first, count))


def moved(shot: Shot, params: Params, scorer: Scorer, folder: Path) -> list[Change]:
    """Return what moves by more than 5 %, or than is known of it."""
    found, cut = stability.changes(shot, params, scorer, folder)
    assert found and not cut
    assert {change.score for change in found} == LEAST.keys() - {"nsfw"}
    return [change for change in found if change.share > KNOWN.get((shot.name, change.score), WITHIN)]


def test_no_score_of_a_real_shot_moves(params, scorer, tmp_path):
    assert not moved(packaged("bikes", 80, 50), params, scorer, tmp_path)


def test_no_score_of_a_small_real_shot_moves(params, scorer, tmp_path):
    assert not moved(packaged("carphone_pristine", 2, 25), params, scorer, tmp_path)


@pytest.mark.parametrize("lines", [1, 2])
def test_the_text_on_a_real_shot_does_not_move(params, scorer, tmp_path, lines):
    shot = stability_shots.titled(packaged("bikes", 80, 16), lines - 1)
    found, _ = stability.changes(shot, params, scorer, tmp_path)
    text = [change for change in found if change.score == "text_area"]
    assert len(text) == len(stability.WAYS) and min(change.reference for change in text) > 0.01
    assert max(change.share for change in text) <= WITHIN


@pytest.mark.long
def test_no_score_of_a_real_shot_in_720p_moves(params, scorer, tmp_path):
    assert not moved(packaged("bigbuckbunny", 2, 50), params, scorer, tmp_path)


@pytest.mark.parametrize("number", [1, *(pytest.param(number, marks=pytest.mark.long) for number in (2, 3))])
def test_no_score_of_a_drawn_shot_moves(params, scorer, tmp_path, number):
    drawn = stability_shots.drawn(number)
    assert not moved(Shot(drawn.name, drawn.frames[:25]), params, scorer, tmp_path)


def test_a_score_near_zero_is_compared_with_the_least_that_it_tells_apart():
    shot = Shot("level", [np.zeros((30, 40, 3), np.uint8)])  # a diagonal of 50
    reference = {"motion": 0.0, "quality": 0.5, "motion_x": 0.0}
    found = stability.compare(shot, "way", reference, {"motion": 0.02, "quality": 0.4, "motion_x": 0.2})
    shares = {change.score: change.share for change in found}
    assert shares == pytest.approx({"motion": 0.5 * WITHIN, "quality": 0.2, "motion_x": 5 * WITHIN})


def test_a_direction_is_compared_with_the_whole_motion_as_a_share_of_its_own_side():
    shot = Shot("level", [np.zeros((30, 40, 3), np.uint8)])
    reference = {"motion": 2.0, "motion_x": 2.5, "motion_y": 0.0}
    found = stability.compare(shot, "way", reference, {"motion": 2.0, "motion_x": 2.0, "motion_y": 0.5})
    shares = {change.score: change.share for change in found}
    assert shares == pytest.approx({"motion": 0.0, "motion_x": 0.5 * 40 / 100, "motion_y": 0.5 * 30 / 100})
