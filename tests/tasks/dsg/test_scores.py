"""The figures are counted as the paper says, with captions as clusters."""

import math
from collections import Counter

import numpy as np
import pytest

from tasks.dsg.questions import Asked, repair
from tasks.dsg.scores import Counts, count, figures, rarefied


def caption(objects=1, invented=0, undecided=0, sentences=1, keys=("cat",)):
    return Counts(objects, invented, undecided, sentences, sentences, min(invented, sentences), keys, {})


def test_a_caption_is_counted():
    graph = repair(
        [
            Asked(1, "object", "cat?", key="cat", sentences=(0,)),
            Asked(2, "object", "cat?", key="cat", sentences=(1,)),
            Asked(3, "object", "dog?", key="dog", sentences=(1,)),
            Asked(4, "attribute", "black dog?", "3", sentences=(1,)),
            Asked(5, "object", "car?", key="car", sentences=(2,)),
            Asked(6, "attribute", "black cat?", "1", sentences=(2,)),
        ]
    )
    verdicts = {1: "present", 3: "invented", 4: "void", 5: "undecided", 6: "invented"}
    assert count(graph, verdicts, 4) == Counts(
        objects=2,
        invented=1,
        undecided=1,
        sentences=4,
        sentences_decided=2,
        sentences_invented=1,
        keys=("cat", "dog", "car"),
        kinds={"object": (2, 1, 1), "attribute": (1, 1, 0)},
    )


@pytest.mark.parametrize(
    ("objects", "invented", "rate"),
    [(1249, 80, 6.4), (1911, 101, 5.3)],
)
def test_the_papers_table_comes_out_of_counts(objects, invented, rate):
    whole, more = divmod(objects, 100)
    bad, others = divmod(invented, 24 if objects == 1249 else 15)  # captions with an invention: 24.0 and 15.0 %
    captions = 24 if objects == 1249 else 15
    rows = [
        caption(whole + (number < more), (bad + (number < others)) if number < captions else 0, keys=(str(number),))
        for number in range(100)
    ]
    found = figures(rows)
    assert (found.rate_i.hits, found.rate_i.of) == (invented, objects)
    assert round(100 * found.rate_i.rate, 1) == rate
    assert round(100 * found.rate_c.rate, 1) == float(captions)
    assert found.objects_per_caption == 1 and found.distinct_objects == 100


def test_the_interval_has_captions_as_clusters_and_the_pooled_one_is_narrower():
    found = figures([caption(10, 5, keys=tuple("abcdefghij"))] * 12 + [caption(10, 0)] * 88)
    assert found.rate_i.low < found.pooled.low < found.rate_i.rate < found.pooled.high < found.rate_i.high
    assert found.effective_objects < 300
    assert found.is_trusted and found.captions_needed == 0


def test_few_inventions_are_no_verdict():
    found = figures([caption(10, 5)] * 5 + [caption(10, 0)] * 95)
    assert not found.is_trusted and found.captions_needed == 100


def test_undecided_objects_hide_nothing():
    found = figures([caption(8, 1, undecided=2)] * 10)
    assert found.rate_i.of == 80
    assert found.undecided == pytest.approx(0.2)
    assert found.bounds == (pytest.approx(0.1), pytest.approx(0.3))


def test_captions_that_name_nothing_have_no_rate():
    found = figures([caption(0, keys=())] * 3)
    assert found.rate_i == (0, 0, None, None, None)
    assert found.undecided is None and found.bounds is None and found.objects_per_caption == 0
    with pytest.raises(ValueError, match="no caption"):
        figures([])


def test_sentences_are_counted_by_both_denominators():
    rows = [Counts(3, 1, 0, 5, 2, 1, ("a",), {})] * 20
    found = figures(rows)
    assert (found.rate_s.rate, found.rate_s_all.rate) == (0.5, 0.2)


def test_kinds_have_rates_of_their_own():
    rows = [Counts(1, 0, 0, 1, 1, 0, ("a",), {"object": (1, 0, 0), "relation": (2, 1, 0)})] * 20
    found = figures(rows)
    assert {kind: rate.rate for kind, rate in found.kinds.items()} == {"object": 0.0, "relation": 0.5}


def test_richness_is_the_mean_over_all_choices_of_captions():
    random = np.random.default_rng(0)
    captions = [set(random.choice(40, random.integers(1, 6), replace=False).tolist()) for _ in range(130)]
    mentions = Counter(str(key) for own in captions for key in own)
    drawn = [len(set().union(*(captions[at] for at in random.permutation(130)[:100]))) for _ in range(3000)]
    assert rarefied(mentions, 130) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / math.sqrt(3000))
    assert rarefied(mentions, 130, size=130) == len(mentions)
    assert rarefied(mentions, 99) is None


def test_richness_of_a_million_captions_is_a_number():
    assert rarefied(Counter({"a": 1_000_000, "b": 500_000, "c": 1}), 1_000_000) == pytest.approx(2.0001, abs=1e-6)
