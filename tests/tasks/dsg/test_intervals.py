"""Intervals equal what the field's library computes, and cover the truth as often as they say."""

import numpy as np
import pytest
from scipy import stats

from tasks.dsg.intervals import captions_needed, clopper_pearson, korn_graubard, wilson

CAPTIONS, SETS = 100, 1000


@pytest.mark.parametrize(("hits", "units"), [(0, 12), (1, 40), (8, 10), (80, 1249), (7, 7)])
def test_intervals_of_independent_units_are_those_of_scipy(hits, units):
    for method, ours in (("exact", clopper_pearson), ("wilson", wilson)):
        theirs = stats.binomtest(hits, units).proportion_ci(method=method)
        assert np.array(ours(np.array(hits), np.array(units))) == pytest.approx(np.array(theirs), abs=1e-12)


def test_equal_clusters_of_one_unit_give_the_exact_interval_but_for_the_degrees_of_freedom():
    hits = np.array([1] * 30 + [0] * 170)
    found = korn_graubard(hits, np.ones(200))
    # Kish's effect is 1: what is left of 200 is the correction for 199 degrees of freedom
    expected = 200 * 199 / 200 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 199)) ** 2
    assert found.effective == pytest.approx(expected)
    x = 0.15 * expected
    assert found.low == pytest.approx(stats.beta.ppf(0.025, x, expected - x + 1))
    assert found.high == pytest.approx(stats.beta.ppf(0.975, x + 1, expected - x))


def test_clusters_that_are_all_or_nothing_count_as_one_unit_each():
    hits = np.array([10] * 20 + [0] * 80)
    wide, exact = korn_graubard(hits, np.full(100, 10)), clopper_pearson(np.array(20), np.array(100))
    assert np.array([wide.low, wide.high]) == pytest.approx(np.array(exact), abs=0.005)


def test_ends_of_the_scale():
    none, all_ = korn_graubard(np.zeros(5), np.full(5, 3)), korn_graubard(np.full(5, 3), np.full(5, 3))
    assert none[1:3] == (0, pytest.approx(1 - 0.025 ** (1 / 15)))
    assert all_[1:3] == (pytest.approx(0.025 ** (1 / 15)), 1)
    assert korn_graubard([2], [10])[1:3] == (0, 1)  # one caption says nothing of others
    assert np.isnan(korn_graubard(np.zeros(4), np.zeros(4)))[:3].all()


def test_clusters_without_a_unit_change_nothing():
    hits, units = np.array([1, 0, 2, 0]), np.array([9, 8, 7, 6])
    more = korn_graubard(np.append(hits, [0, 0]), np.append(units, [0, 0]))
    assert more == korn_graubard(hits, units)


def test_more_hits_than_units_are_refused():
    with pytest.raises(ValueError, match="more hits than units"):
        korn_graubard([3], [2])


def draw(rate: float, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw sets of captions of some 15 objects; each caption has a rate of its own. Shapes (sets, captions)."""
    random = np.random.default_rng([7, round(100 * rate), round(10 * correlation)])
    objects = np.clip(random.poisson(15, (SETS, CAPTIONS)), 1, None)
    spread = (1 - correlation) / correlation if correlation else None
    own = random.beta(rate * spread, (1 - rate) * spread, objects.shape) if spread else np.full(objects.shape, rate)
    return random.binomial(objects, own), objects


@pytest.mark.parametrize("correlation", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("rate", [0.03, 0.06, 0.3])
def test_the_interval_covers_the_truth_where_the_pooled_one_does_not(rate, correlation):
    invented, objects = draw(rate, correlation)
    clustered = korn_graubard(invented, objects)
    low, high = wilson(invented.sum(-1), objects.sum(-1))
    assert ((clustered.low <= rate) & (rate <= clustered.high)).sum() >= 925
    pooled = ((low <= rate) & (rate <= high)).sum()
    assert pooled < {0.0: 1001, 0.1: 850, 0.3: 700}[correlation]


@pytest.mark.parametrize(("captions", "hit", "more"), [(100, 10, 0), (100, 5, 100), (100, 3, 234), (100, 0, 900)])
def test_captions_that_are_needed_until_ten_have_an_invention(captions, hit, more):
    assert captions_needed(captions, hit) == more
