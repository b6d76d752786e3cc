"""The order in which samples are drawn, and the seeds of random draws.

Both are pure functions of the seed and the position in the run, so that a run that goes on after a crash, or on
another number of ranks, draws the same.
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import numpy as np

_ROUNDS = 8
_BLOCK = 256
"""Positions in a block of a balanced order, unless a share is so small that its group would miss blocks."""
LEAST_SHARE = 1e-6
"""Of a group of a balanced order."""


class Order:
    """Which sample stands at each position of a run: one seeded permutation per epoch.

    The permutation is computed per position, not kept (a Feistel network over pairs of numbers below `side`, walked
    until it meets a sample: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002), so that the first
    position and the one after a billion cost the same.
    """

    def __init__(self, samples: int, seed: int):
        if samples < 1:
            raise ValueError("an order needs one sample or more, and there are 0")
        self.samples, self.seed = samples, seed
        self.side = math.isqrt(samples - 1) + 1

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self.samples)
        keys = _round_keys(self.seed, epoch)
        while True:
            left, right = divmod(place, self.side)
            for key in keys:
                left, right = right, (left + _scatter(right ^ key)) % self.side
            place = left * self.side + right
            if place < self.samples:
                return place

    def position(self, sample: int, epoch: int) -> int:
        """Return where a sample stands in an epoch: the network backwards, at the cost of one place."""
        keys, place = _round_keys(self.seed, epoch), sample
        while True:
            left, right = divmod(place, self.side)
            for key in reversed(keys):
                left, right = (right - _scatter(left ^ key)) % self.side, left
            place = left * self.side + right
            if place < self.samples:
                return epoch * self.samples + place

    def samples_of(self, epoch: int, places: range) -> np.ndarray:
        """Return the samples at places of an epoch, counted from its first: many at once, (places,)."""
        keys, side = _round_keys(self.seed, epoch), np.uint64(self.side)
        found = np.arange(places.start, places.stop, dtype=np.uint64)
        on_the_way = np.arange(len(found))
        while len(on_the_way):
            left, right = np.divmod(found[on_the_way], side)
            for key in keys:
                # reduced before the sum, which would not fit in 64 bits
                left, right = right, (left + _scatter_all(right ^ np.uint64(key)) % side) % side
            found[on_the_way] = left * side + right
            on_the_way = on_the_way[found[on_the_way] >= self.samples]
        return found


class BalancedOrder:
    """Which sample stands at each position of a run in which every group of samples has its share of the positions.

    Positions are cut into blocks. Up to the end of any block, a group has had its share of the positions, to less than
    one: cumulated shares are rounded down, in whole numbers. Within a block the groups' draws stand in a seeded order,
    and the draws of a group go through its samples as `Order` does, each once before any comes again.

    Args:
        groups: number of each sample's group: (samples,). Each group has a sample.
        weights: of each group; its share is its weight divided by the sum of all.
        seed: of the order.

    Raises:
        ValueError: there is no sample, or a group has less than a millionth of the draws.
    """

    def __init__(self, groups: np.ndarray, weights: Sequence[float], seed: int):
        if not len(groups):
            raise ValueError("an order needs one sample or more, and there are 0")
        exact = [Fraction(str(weight)) for weight in weights]
        self.shares = [weight / sum(exact) for weight in exact]
        if (least := min(self.shares)) < LEAST_SHARE:
            raise ValueError(
                f"a category has {float(least):.1e} of the draws, less than {LEAST_SHARE:g}: raise its weight in "
                "categories.weights"
            )
        self.samples, self.groups, self.seed = len(groups), groups, seed
        self.block = max(_BLOCK, math.ceil(2 / least))
        """Positions in a block: with two draws of each group or more on average, rounding leaves none negative."""
        self._cumulated = tuple(sum(self.shares[:number], Fraction(0)) for number in range(len(exact) + 1))
        self._members = np.argsort(groups, kind="stable").astype(np.min_scalar_type(len(groups)))
        sizes = np.bincount(groups, minlength=len(exact))
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._places = Order(self.block, draw_seed(seed, "places of groups", 0))
        self.orders = [Order(int(size), draw_seed(seed, "group", number)) for number, size in enumerate(sizes)]
        """Of each group's draws: which of its `members` they are."""

    def __getitem__(self, position: int) -> int:
        block = position // self.block
        before, edges = _bounds(self._cumulated, self.block, block)
        place = self._places[position]
        group = bisect_right(edges, place) - 1
        draw = before[group] + place - edges[group]
        return int(self._members[self._starts[group] + self.orders[group][draw]])

    def members(self, group: int) -> np.ndarray:
        """Return the samples of a group, rising: (members,)."""
        return self._members[self._starts[group] : self._starts[group + 1]]

    def draws_before(self, block: int) -> tuple[int, ...]:
        """Return how many draws each group has had before a block."""
        return _bounds(self._cumulated, self.block, block)[0]

    def position(self, group: int, draw: int) -> int:
        """Return at which position a group has a draw of its own, counted from 0."""
        block = int(draw / self.shares[group] / self.block)
        while self.draws_before(block)[group] > draw:
            block -= 1
        while self.draws_before(block + 1)[group] <= draw:
            block += 1
        before, edges = _bounds(self._cumulated, self.block, block)
        return self._places.position(edges[group] + draw - before[group], block)


@lru_cache(maxsize=64)
def _bounds(cumulated: tuple[Fraction, ...], size: int, block: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return of each group its draws before a block, and where its own begin in the block, before they mix."""
    first = [math.floor(block * size * share) for share in cumulated]
    last = [math.floor((block + 1) * size * share) for share in cumulated]
    before = tuple(after - own for own, after in pairwise(first))
    return before, tuple(after - own for own, after in zip(first, last, strict=True))


@lru_cache(maxsize=256)
def _round_keys(seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(draw_seed(seed, f"epoch {epoch} round", number) for number in range(_ROUNDS))


def _scatter(x: int) -> int:
    """Mix the bits of a number below 2^64, so that neighbours end up far apart."""
    for factor in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93):
        x = x * factor & 0xFFFFFFFFFFFFFFFF
        x ^= x >> 32
    return x


def _scatter_all(x: np.ndarray) -> np.ndarray:
    """Return what `_scatter` makes of each of many numbers (uint64): products are below 2^64 by themselves."""
    for factor in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93):
        x = x * np.uint64(factor)
        x ^= x >> np.uint64(32)
    return x


def draw_seed(seed: int, purpose: str, number: int) -> int:
    """Return a seed for one draw, as good as independent of those of other purposes and numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()[:7], "little")


def micro_batches(steps: Iterable[int], batch: int, accumulation: int, rank: int, ranks: int) -> Iterator[range]:
    """Yield the positions of a rank's micro-batches, `accumulation` per step.

    Step n has the positions from n * batch on, whatever the number of ranks; they are cut into equal parts, which
    the ranks take in turn.

    Raises:
        ValueError: the batch cannot be cut into equal parts.
    """
    share, rest = divmod(batch, accumulation * ranks)
    if rest:
        raise ValueError(f"batch {batch} cannot be cut into {accumulation * ranks} equal micro-batches")
    for step in steps:
        for part in range(accumulation):
            first = step * batch + (part * ranks + rank) * share
            yield range(first, first + share)
