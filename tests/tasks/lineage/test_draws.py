"""What a run drew of each sample is what its positions say, worked out one by one."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stiv_model.latents.order import BalancedOrder, Order
from tasks.lineage import draws


@settings(deadline=None, max_examples=60)
@given(
    samples=st.sampled_from([1, 2, 3, 7, 13]),
    batch=st.integers(1, 30),
    tried=st.lists(st.booleans(), max_size=12),
    seed=st.integers(0, 9),
)
def test_samples_were_seen_as_often_as_their_positions_say(samples, batch, tried, seed):
    check(Order(samples, seed), batch, tried)


@settings(deadline=None, max_examples=15)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    batch=st.integers(1, 300),
    tried=st.lists(st.booleans(), max_size=6),
    seed=st.integers(0, 9),
)
def test_samples_of_balanced_runs_were_seen_as_often_as_their_positions_say(sizes, batch, tried, seed):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    check(BalancedOrder(groups, [1.0, 0.2, 3.0][: len(sizes)], seed), batch, tried)


def check(order: Order | BalancedOrder, batch: int, tried: list[bool]) -> None:
    steps = np.array([step for step, is_tried in enumerate(tried, 1) if is_tried], int)
    found = draws.from_steps(order, steps, (steps - 1) * batch, steps * batch - 1)
    seen = {step: [order[position] for position in range((step - 1) * batch, step * batch)] for step in steps.tolist()}
    counts = Counter(sample for drawn in seen.values() for sample in drawn)
    assert found.times().tolist() == [counts[sample] for sample in range(order.samples)]
    for sample in range(order.samples):
        first = next((step for step, drawn in seen.items() if sample in drawn), None)
        assert found.seen(sample) == (counts[sample], first)
