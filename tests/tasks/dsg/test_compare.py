"""Two captioners are told apart where the clips tell them apart, and not where they do not."""

import numpy as np
import pytest

from tasks.dsg.compare import compare, compare_totals

PAPER = (80, 1249, 101, 1911, 100)  # STIV, section 5: frames and LLM, video


def test_the_papers_own_difference_is_none():
    compared = compare_totals(*PAPER)
    assert compared.z == pytest.approx(1.3, abs=0.05)
    assert compared.verdict == "cannot tell"


def test_what_would_tell_the_papers_captioners_apart():
    compared = compare_totals(*PAPER, design_effect=2)
    assert 100 + compared.more == pytest.approx(950, rel=0.03)
    assert str(compared) == f"cannot tell, {compared.more} clips more would tell"


def some(random, clips, rate_a, rate_b, spread=9):
    """Draw counts of two captioners on clips that are harder or easier for both."""
    hard = random.beta(spread * 0.5, spread * 0.5, clips) * 2
    objects = random.poisson(10, (2, clips)) + 1
    (h_a, h_b), (m_a, m_b) = random.binomial(objects, np.outer([rate_a, rate_b], hard)), objects
    return h_a, m_a, h_b, m_b


def test_the_first_is_better_where_it_invents_less():
    random = np.random.default_rng(0)
    h_a, m_a, h_b, m_b = some(random, 300, 0.05, 0.12)
    better, worse = compare(h_a, m_a, h_b, m_b), compare(h_b, m_b, h_a, m_a)
    assert (better.verdict, worse.verdict) == ("better", "worse")
    assert better.difference == -worse.difference < 0
    assert (better.low, better.high) == (-worse.high, -worse.low)
    assert better.more == 0 and str(better) == "better"


def test_equal_captioners_are_told_apart_in_a_twentieth_and_their_difference_is_covered():
    random = np.random.default_rng(1)
    found = [compare(*some(random, 100, 0.1, 0.1)) for _ in range(400)]
    told = sum(one.verdict != "cannot tell" for one in found)
    assert 8 <= told <= 34  # 20 expected of 400


def test_as_many_clips_as_it_asks_for_tell_in_eight_of_ten():
    random = np.random.default_rng(2)
    rates, clips = (0.08, 0.12), 60
    many = compare(*some(random, 20_000, *rates))
    z = many.z * np.sqrt(clips / 20_000)  # what so few clips show in the mean
    needed = int(clips * (2.8016 / z) ** 2)
    told = [compare(*some(random, needed, *rates)).verdict == "better" for _ in range(300)]
    assert np.mean(told) == pytest.approx(0.8, abs=0.07)


def test_few_inventions_tell_nothing_however_one_sided_they_are():
    objects = np.full(400, 5)
    none, few = np.zeros(400), np.array([1] * 9 + [0] * 391)
    compared = compare(none, objects, few, objects)
    assert compared.high < 0  # by the interval alone it would be told
    assert compared.verdict == "cannot tell" and compared.more == 45


def test_no_difference_has_no_number_that_would_tell():
    hits, objects = np.array([1] * 12 + [0] * 8), np.full(20, 5)
    assert str(compare(hits, objects, hits, objects)) == "cannot tell"


@pytest.mark.parametrize("clips", [1, 3])
def test_too_few_to_compare_is_refused(clips):
    with pytest.raises(ValueError, match=f"{clips} clips"):
        compare(np.zeros(clips), np.ones(clips) * (clips == 1), np.zeros(clips), np.zeros(clips) + (clips == 1))
    with pytest.raises(ValueError, match="0 and 5 objects"):
        compare_totals(0, 0, 1, 5, 3)
