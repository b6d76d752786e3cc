"""A rate is corrected by what the judge is known to get wrong, and its interval covers the truth."""

import numpy as np
import pytest

from tasks.dsg.correction import Known, correct, observed_threshold, youden
from tasks.dsg.intervals import korn_graubard

PERFECT = Known(10**7, 10**7)


def observed(sets, rate, sensitivity, specificity, captions=150, objects=12, seed=0):
    """Draw counts of captions, seen by a judge with errors: (sets, captions)."""
    random = np.random.default_rng(seed)
    own = random.beta(rate * 9, (1 - rate) * 9, (sets, captions))
    real = random.binomial(objects, own)
    seen = random.binomial(real, sensitivity) + random.binomial(objects - real, 1 - specificity)
    return korn_graubard(seen, np.full(seen.shape, objects))


def test_a_perfect_judge_changes_nothing():
    seen = observed(5, 0.1, 1, 1)
    corrected = correct(seen, PERFECT, PERFECT)
    assert corrected.rate == pytest.approx(seen.rate, abs=1e-6)
    assert corrected.low == pytest.approx(seen.low, abs=0.005)
    assert corrected.high == pytest.approx(seen.high, abs=0.005)


def test_the_formula_of_rogan_and_gladen():
    seen = korn_graubard(np.full(50, 3), np.full(50, 20))
    corrected = correct(seen, Known(90, 100), Known(95, 100))
    assert corrected.rate == pytest.approx((0.15 + 0.95 - 1) / (0.9 + 0.95 - 1))
    assert corrected.low < corrected.rate < corrected.high


@pytest.mark.parametrize(("rate", "known"), [(0.01, 200), (0.05, 60), (0.2, 60), (0.4, 200)])
def test_the_corrected_interval_covers_the_truth_and_the_raw_one_does_not(rate, known):
    sensitivity, specificity, sets = 0.9, 0.95, 1000
    seen = observed(sets, rate, sensitivity, specificity, seed=known)
    random = np.random.default_rng(known)
    covered = 0
    for one in range(sets):
        caught, kept = random.binomial(known, [sensitivity, specificity])
        corrected = correct(type(seen)(*(part[one] for part in seen)), Known(caught, known), Known(kept, known))
        covered += corrected.low <= rate <= corrected.high
    assert covered >= 930
    assert ((seen.low <= rate) & (rate <= seen.high)).sum() < covered


def test_a_judge_of_whom_nothing_is_confirmed_leaves_the_rate_too_high():
    seen = observed(1, 0.1, 0.9, 0.95)
    assert correct(seen, Known(90, 100), Known(0, 0)).rate > correct(seen, Known(90, 100), Known(95, 100)).rate


@pytest.mark.parametrize(("decoys", "confirmed"), [((4, 5), (90, 100)), ((45, 100), (90, 100)), ((90, 100), (50, 100))])
def test_a_judge_that_is_not_fit_corrects_nothing(decoys, confirmed):
    with pytest.raises(ValueError, match=f"{decoys[0]} of {decoys[1]} decoys"):
        correct(observed(1, 0.1, 1, 1), Known(*decoys), Known(*confirmed))


def test_no_rate_leaves_the_scale():
    corrected = correct(korn_graubard(np.zeros(50), np.ones(50)), Known(90, 100), Known(80, 100))
    assert (corrected.rate, corrected.low) == (0, 0) and 0 <= corrected.high < 0.2


def test_the_threshold_as_a_judge_with_errors_sees_it():
    decoys, confirmed = Known(90, 100), Known(95, 100)
    assert youden(decoys, confirmed) == pytest.approx(0.85)
    assert observed_threshold(0.1, decoys, confirmed) == pytest.approx(0.1 * 0.9 + 0.9 * 0.05)
