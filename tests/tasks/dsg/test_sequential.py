"""Asking that stops when it is decided decides as all captions do, with a share of them."""

from collections import Counter

import numpy as np
import pytest

from tasks.dsg.intervals import korn_graubard
from tasks.dsg.sequential import Sequential, rank, stop

THRESHOLD, CAPTIONS, MOST = 0.08, 1000, 30


def pools(rate: float, correlation: float, number: int):
    """Give counts of captions of some 15 objects whose own rates vary around `rate`."""
    random = np.random.default_rng([3, round(1000 * rate), round(10 * correlation)])
    for _ in range(number):
        objects = np.clip(random.poisson(15, CAPTIONS), 1, MOST)
        spread = (1 - correlation) / correlation if correlation else None
        own = random.beta(rate * spread, (1 - rate) * spread, CAPTIONS) if spread else rate
        yield random.binomial(objects, own), objects


def ends(rate: float, correlation: float, number: int):
    """Return the decisions, those of the whole pools, and the mean share of the captions that were used."""
    early, whole, used = [], [], []
    for invented, objects in pools(rate, correlation, number):
        stopped = stop(THRESHOLD, invented.tolist(), objects.tolist(), MOST)
        early.append(stopped.decision)
        used.append(stopped.captions)
        interval = korn_graubard(invented, objects)
        whole.append("below" if interval.high < THRESHOLD else "above" if interval.low > THRESHOLD else "open")
    return early, whole, float(np.mean(used)) / CAPTIONS


def check_far_from_the_threshold(number: int):
    for rate, correlation, most in [(0.02, 0.1, 0.3), (0.04, 0.0, 0.45), (0.04, 0.1, 0.45), (0.12, 0.1, 0.15)]:
        early, whole, used = ends(rate, correlation, number)
        assert early == whole
        assert set(early) == {"below" if rate < THRESHOLD else "above"}
        assert used <= most


def check_at_the_threshold(number: int):
    # the bound is 1 of 20; what is measured is less, for a pool ends
    decided = Counter(decision for decision in ends(THRESHOLD, 0.1, number)[0])
    assert number - decided["open"] <= 0.05 * number
    assert decided["open"] > number / 2


def test_it_decides_as_the_whole_pool_with_less_than_half_of_it():
    check_far_from_the_threshold(25)


def test_at_the_threshold_it_mostly_stays_open():
    check_at_the_threshold(40)


@pytest.mark.long
def test_it_decides_as_the_whole_pool_in_200_of_200():
    check_far_from_the_threshold(200)


@pytest.mark.long
def test_at_the_threshold_it_is_wrong_in_a_twentieth_at_most():
    check_at_the_threshold(400)


def test_a_decision_stays():
    state = Sequential(0.5, 4)
    for _ in range(40):
        state.add(0, 4)
    assert state.decision == "below"
    for _ in range(200):
        assert state.add(4, 4) == "below"


def test_captions_without_objects_decide_nothing():
    assert stop(0.1, [0] * 500, [0] * 500) == ("open", 500)


@pytest.mark.parametrize(("invented", "objects"), [(3, 2), (-1, 2), (0, 31)])
def test_counts_that_cannot_be_are_refused(invented, objects):
    with pytest.raises(ValueError, match=str(objects)):
        Sequential(THRESHOLD, MOST).add(invented, objects)


@pytest.mark.parametrize(("threshold", "most"), [(0, 3), (1, 3), (0.1, 0)])
def test_a_threshold_that_nothing_can_pass_is_refused(threshold, most):
    with pytest.raises(ValueError, match="Sequential"):
        Sequential(threshold, most)


def test_the_order_is_random_and_more_captions_leave_it_as_it_is():
    keys = [f"clip-{number}" for number in range(50)]
    order = sorted(keys, key=lambda key: rank(key, 4))
    assert order != keys and order != sorted(keys, key=lambda key: rank(key, 5))
    assert [key for key in order if key in keys[::3]] == sorted(keys[::3], key=lambda key: rank(key, 4))
