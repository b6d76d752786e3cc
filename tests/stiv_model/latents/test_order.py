import time
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stiv_model.latents.order import Order, draw_seed, micro_batches


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
