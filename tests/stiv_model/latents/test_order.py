import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stiv_model.latents.order import BalancedOrder, Order, draw_seed, micro_batches


@settings(deadline=None)
@given(samples=st.integers(1, 50), epochs=st.integers(1, 4), seed=st.integers())
def test_every_epoch_draws_every_sample_once(samples, epochs, seed):
    order = Order(samples, seed)
    drawn = [order[position] for position in range(samples * epochs)]
    for epoch in range(epochs):
        assert Counter(drawn[epoch * samples : (epoch + 1) * samples]) == Counter(range(samples))


@settings(deadline=None)
@given(position=st.integers(0, 1000), seed=st.integers())
def test_what_is_drawn_depends_on_the_position_alone(position, seed):
    visited = Order(17, seed)
    for before in range(0, position, 7):
        visited[before]
    assert visited[position] == Order(17, seed)[position]


@settings(deadline=None, max_examples=25)
@given(samples=st.sampled_from([1, 2, 3, 31, 997, 1000]), epoch=st.integers(0, 5), seed=st.integers())
def test_where_a_sample_stands_is_where_a_search_finds_it(samples, epoch, seed):
    order = Order(samples, seed)
    drawn = [order[epoch * samples + place] for place in range(samples)]
    assert [order.position(sample, epoch) for sample in drawn] == [epoch * samples + at for at in range(samples)]
    assert order.samples_of(epoch, range(samples)).tolist() == drawn
    assert order.samples_of(epoch, range(samples // 3, samples // 2)).tolist() == drawn[samples // 3 : samples // 2]


def test_where_a_sample_stands_among_many_is_found_at_once():
    order = Order(99_999, 7)
    drawn = order.samples_of(3, range(99_999))
    assert sorted(drawn.tolist()) == list(range(99_999))
    for place in (0, 1, 50_000, 99_998):
        assert drawn[place] == order[3 * 99_999 + place]
        assert order.position(int(drawn[place]), 3) == 3 * 99_999 + place
    large = Order(10**10, 0)
    assert large[large.position(123_456_789, 2)] == 123_456_789
    assert large.samples_of(2, range(7, 9)).tolist() == [large[2 * 10**10 + 7], large[2 * 10**10 + 8]]


def test_epochs_and_seeds_differ_in_their_order():
    epochs = {
        tuple(Order(50, seed)[epoch * 50 + place] for place in range(50)) for seed in (0, 1) for epoch in range(5)
    }
    assert len(epochs) == 10


def test_every_sample_is_as_likely_at_every_place():
    counts = torch.zeros(10, 10)
    for seed in range(2000):
        order = Order(10, seed)
        for place in range(10):
            counts[place, order[place]] += 1
    chi_squared = ((counts - 200) ** 2 / 200).sum().item()  # 81 degrees of freedom
    assert chi_squared < 81 + 5 * (2 * 81) ** 0.5


def test_a_position_among_billions_of_samples_is_found_at_once():
    order = Order(10**10, 0)
    started = time.perf_counter()
    assert 0 <= order[7 * 10**12 + 5] < 10**10
    assert time.perf_counter() - started < 0.1


GROUPS = st.lists(st.tuples(st.integers(1, 30), st.sampled_from([0.1, 0.5, 1.0, 3.0, 7.25])), min_size=1, max_size=6)


def balanced(groups: list[tuple[int, float]], seed: int) -> BalancedOrder:
    """An order of groups of so many samples with such weights, whose samples are mixed."""
    numbers = np.repeat(np.arange(len(groups)), [size for size, _ in groups])
    np.random.default_rng(3).shuffle(numbers)
    return BalancedOrder(numbers, [weight for _, weight in groups], seed)


@settings(deadline=None, max_examples=20)
@given(groups=GROUPS, blocks=st.integers(1, 3), seed=st.integers(0, 99))
def test_every_group_is_drawn_with_its_weight_and_each_of_its_samples_as_often_as_the_others(groups, blocks, seed):
    order = balanced(groups, seed)
    positions = blocks * order.block
    drawn = np.array([order[position] for position in range(positions)])
    total = sum(weight for _, weight in groups)
    for group, (size, weight) in enumerate(groups):
        of_group = drawn[order.groups[drawn] == group]
        assert abs(len(of_group) - positions * weight / total) < 1
        assert len(of_group) == order.draws_before(blocks)[group]
        times = np.bincount(of_group, minlength=order.samples)[order.members(group)]
        assert times.sum() == len(of_group) and times.max() - times.min() <= 1 and len(times) == size


@settings(deadline=None, max_examples=20)
@given(groups=GROUPS, position=st.integers(0, 2000), seed=st.integers(0, 99))
def test_what_a_balanced_order_draws_depends_on_the_position_alone(groups, position, seed):
    visited = balanced(groups, seed)
    for before in range(0, position, 97):
        visited[before]
    assert visited[position] == balanced(groups, seed)[position]


@settings(deadline=None, max_examples=20)
@given(groups=GROUPS, draw=st.integers(0, 500), seed=st.integers(0, 99))
def test_where_a_group_has_a_draw_is_where_it_is_found(groups, draw, seed):
    order = balanced(groups, seed)
    for group in range(len(groups)):
        position, own = order.position(group, draw), order.orders[group]
        assert order[position] == order.members(group)[own[draw]]
        assert order.draws_before(position // order.block)[group] <= draw


def test_groups_of_a_block_are_mixed():
    order = balanced([(50, 1.0), (50, 1.0)], 0)
    groups = order.groups[[order[position] for position in range(4 * order.block)]]
    changes = int((np.diff(groups) != 0).sum())
    assert 0.4 < changes / len(groups) < 0.6


def test_a_rare_group_is_drawn_as_rarely_as_it_says_and_one_too_rare_is_refused():
    order = balanced([(3, 1.0), (40, 9999.0)], 1)
    assert order.block == 20_000
    assert order.draws_before(5) == (10, 99_990)
    with pytest.raises(ValueError, match=r"1\.0e-07 of the draws, .*categories\.weights"):
        balanced([(3, 1e-7), (40, 1.0)], 1)


def test_a_position_far_in_a_balanced_run_is_found_at_once():
    order = balanced([(3, 0.3), (40, 0.7)], 1)
    started = time.perf_counter()
    assert 0 <= order[10**13] < 43
    assert order.groups[order[order.position(1, 10**12)]] == 1
    assert time.perf_counter() - started < 0.1


@settings(deadline=None, max_examples=30)
@given(
    samples=st.integers(1, 100),
    seed=st.integers(),
    accumulation=st.integers(1, 2),
    steps=st.integers(0, 3).flatmap(lambda first: st.integers(first, 4).map(lambda last: range(first, last))),
)
def test_any_number_of_ranks_draws_the_same_samples_in_the_same_order(samples, seed, accumulation, steps):
    batch, order = 120, Order(samples, seed)  # 120: what 1 to 5 ranks can share, in 1 or 2 parts
    wanted = [order[position] for position in range(steps.start * batch, steps.stop * batch)]
    for ranks in range(1, 6):
        shares = [micro_batches(steps, batch, accumulation, rank, ranks) for rank in range(ranks)]
        drawn = [order[p] for parts in zip(*shares, strict=True) for part in parts for p in part]
        assert drawn == wanted


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(ValueError, match=r"batch 8 cannot be cut into 3"):
        next(micro_batches(range(1), 8, 1, 0, 3))


def test_seeds_of_different_purposes_differ():
    assert len({draw_seed(0, "epoch", 1), draw_seed(0, "sample", 1), draw_seed(0, "epoch", 2)}) == 3
