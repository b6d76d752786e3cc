"""What a run drew, and how often: its ledger says at which positions it trained, its order which samples these are.

Of millions of samples and hundreds of thousands of steps: an epoch that was trained on whole is counted, not drawn.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from stiv_model.latents import balance
from stiv_model.latents.order import BalancedOrder, Order
from stiv_model.latents.training_set import SAMPLES
from stiv_model.settings import RUN_FILE, Run
from stiv_model.training.run_files import LEDGER

_DRAWN_AT_ONCE = 1 << 16
_OF_LEDGER = {"step": pa.int64(), "first_position": pa.int64(), "last_position": pa.int64()}


class Seen(NamedTuple):
    """How often one run trained on one clip."""

    times: int
    first_step: int | None
    """Counted from 1; None if never."""


class Draws(NamedTuple):
    """The positions that a run trained on."""

    order: Order | BalancedOrder
    steps: np.ndarray
    """Numbers of the steps that were tried, rising."""
    firsts: np.ndarray
    """Their first positions."""
    stretches: list[range]
    """All positions, those of steps that follow each other together."""

    def seen(self, sample: int) -> Seen:
        """Return how often a sample was drawn, and when first."""
        times, first = 0, None
        for stretch in self.stretches:
            more, earliest = _seen_of(self.order, sample, stretch)
            times, first = times + more, earliest if first is None else first
        return Seen(times, None if first is None else int(self.steps[np.searchsorted(self.firsts, first, "right") - 1]))

    def times(self) -> np.ndarray:
        """Return how often each sample was drawn, int64."""
        times = np.zeros(self.order.samples, np.int64)
        for stretch in self.stretches:
            times += _times_of(self.order, stretch)
        return times


def _seen_of(order: Order | BalancedOrder, sample: int, stretch: range) -> tuple[int, int | None]:
    """Return how often a sample stands at some positions, and the first of these."""
    if isinstance(order, BalancedOrder):
        return _seen_of_balanced(order, sample, stretch)
    head, whole, tail = _by_epochs(stretch, order.samples)
    at_the_ends = [_where(order, sample, head), _where(order, sample, tail)]
    in_whole = order.position(sample, whole.start) if whole else None
    found = [one for one in (at_the_ends[0], in_whole, at_the_ends[1]) if one is not None]
    return len(whole) + sum(one is not None for one in at_the_ends), found[0] if found else None


def _where(order: Order, sample: int, positions: range) -> int | None:
    """Return the position of a sample among positions of one epoch, None if it is not there."""
    found = order.position(sample, positions.start // order.samples) if positions else -1
    return found if found in positions else None


def _seen_of_balanced(order: BalancedOrder, sample: int, stretch: range) -> tuple[int, int | None]:
    """As `_seen_of`: drawn at the ends, and by the draws of the sample's group in blocks that are whole."""
    head, whole, tail = _by_epochs(stretch, order.block)
    found = [position for some in (head, tail) for position in some if order[position] == sample]
    times, group = len(found), int(order.groups[sample])
    own, draws = order.orders[group], _draws_of(order, whole, group)
    place = int(np.searchsorted(order.members(group), sample))
    more, first = _seen_of(own, place, draws)
    if first is not None:
        # draws of one block stand in any order there, and the sample may be among them again
        earliest = order.position(group, first)
        until = order.draws_before(earliest // order.block + 1)[group]
        epochs = range(first // own.samples + 1, -(-until // own.samples))
        again = [draw for epoch in epochs if (draw := own.position(place, epoch)) < until]
        found += [earliest, *(order.position(group, draw) for draw in again)]
    return times + more, min(found, default=None)


def _times_of(order: Order | BalancedOrder, stretch: range) -> np.ndarray:
    """Return how often each sample stands at some positions, int64."""
    if isinstance(order, BalancedOrder):
        head, whole, tail = _by_epochs(stretch, order.block)
        times = np.zeros(order.samples, np.int64)
        np.add.at(times, [order[position] for some in (head, tail) for position in some], 1)
        for group, own in enumerate(order.orders):
            times[order.members(group)] += _times_of(own, _draws_of(order, whole, group))
        return times
    head, whole, tail = _by_epochs(stretch, order.samples)
    times = np.full(order.samples, len(whole))
    for some in (*_pieces(head), *_pieces(tail)):
        epoch, place = divmod(some.start, order.samples)
        times[order.samples_of(epoch, range(place, place + len(some)))] += 1  # each once in an epoch
    return times


def _draws_of(order: BalancedOrder, blocks: range, group: int) -> range:
    return range(order.draws_before(blocks.start)[group], order.draws_before(blocks.stop)[group])


def of(checkpoint: Path) -> Draws:
    """Return what a run drew."""
    table = checkpoint / SAMPLES
    samples = pq.read_metadata(table).num_rows
    run = Run.model_validate(json.loads((checkpoint / RUN_FILE).read_text()))
    balanced = balance.read(table, np.arange(samples), only_ok=False) if run.recipe.balance else None
    ledger = csv.read_csv(
        checkpoint / LEDGER,
        csv.ReadOptions(use_threads=False),
        csv.ParseOptions(delimiter="\t"),
        csv.ConvertOptions(include_columns=list(_OF_LEDGER), column_types=_OF_LEDGER),
    ).drop_null()  # a step that was passed over has no positions
    steps, firsts, lasts = (ledger[name].to_numpy() for name in _OF_LEDGER)
    return from_steps(balance.order(samples, run.training.seed, balanced), steps, firsts, lasts)


def from_steps(order: Order | BalancedOrder, steps: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> Draws:
    """Return what was drawn by steps, rising, from their first to their last positions."""
    goes_on = firsts[1:] == lasts[:-1] + 1
    parts = np.split(np.arange(len(steps)), np.flatnonzero(~goes_on) + 1)
    stretches = [range(int(firsts[part[0]]), int(lasts[part[-1]]) + 1) for part in parts if len(part)]
    return Draws(order, steps, firsts, stretches)


def _by_epochs(positions: range, samples: int) -> tuple[range, range, range]:
    """Cut positions into those before their first whole epoch, the whole epochs (by number), and those behind."""
    whole = range(-(-positions.start // samples), positions.stop // samples)
    if not whole:  # at most one border of epochs is inside
        border = min(whole.start * samples, positions.stop)
        return range(positions.start, border), range(0), range(border, positions.stop)
    return (
        range(positions.start, whole.start * samples),
        whole,
        range(whole.stop * samples, positions.stop),
    )


def _pieces(positions: range) -> Iterator[range]:
    for first in range(0, len(positions), _DRAWN_AT_ONCE):
        yield positions[first : first + _DRAWN_AT_ONCE]
