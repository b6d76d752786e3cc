"""What a run drew of each sample is what its positions say, worked out one by one."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stiv_model.latents.order import Order
from tasks.lineage import draws


@settings(deadline=None, max_examples=60)
@given(
    samples=st.sampled_from([1, 2, 3, 7, 13]),
    batch=st.integers(1, 30),
    tried=st.lists(st.booleans(), max_size=12),
    seed=st.integers(0, 9),
)
def test_samples_were_seen_as_often_as_their_positions_say(samples, batch, tried, seed):
    order = Order(samples, seed)
    steps = np.array([step for step, is_tried in enumerate(tried, 1) if is_tried], int)
    found = draws.from_steps(order, steps, (steps - 1) * batch, steps * batch - 1)
    seen = {step: [order[position] for position in range((step - 1) * batch, step * batch)] for step in steps.tolist()}
    counts = Counter(sample for drawn in seen.values() for sample in drawn)
    assert found.times().tolist() == [counts[sample] for sample in range(samples)]
    for sample in range(samples):
        first = next((step for step, drawn in seen.items() if sample in drawn), None)
        assert found.seen(sample) == (counts[sample], first)
