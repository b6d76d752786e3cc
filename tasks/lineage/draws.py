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

from stiv_model.latents.order import Order
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

    order: Order
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
            head, whole, tail = _by_epochs(stretch, self.order.samples)
            times += len(whole)
            found = [self._where(sample, head), self._where(sample, tail)]
            times += sum(position is not None for position in found)
            if first is None:
                in_whole = self.order.position(sample, whole.start) if whole else None
                first = next((one for one in (found[0], in_whole, found[1]) if one is not None), None)
        return Seen(times, None if first is None else int(self.steps[np.searchsorted(self.firsts, first, "right") - 1]))

    def _where(self, sample: int, positions: range) -> int | None:
        """Return the position of a sample among positions of one epoch, None if it is not there."""
        found = self.order.position(sample, positions.start // self.order.samples) if positions else -1
        return found if found in positions else None

    def times(self) -> np.ndarray:
        """Return how often each sample was drawn, int64."""
        samples = self.order.samples
        parts = [_by_epochs(stretch, samples) for stretch in self.stretches]
        times = np.full(samples, sum(len(whole) for _, whole, _ in parts))
        for head, _, tail in parts:
            for some in (*_pieces(head), *_pieces(tail)):
                epoch, place = divmod(some.start, samples)
                times[self.order.samples_of(epoch, range(place, place + len(some)))] += 1  # each once in an epoch
        return times


def of(checkpoint: Path) -> Draws:
    """Return what a run drew."""
    samples = pq.read_metadata(checkpoint / SAMPLES).num_rows
    run = Run.model_validate(json.loads((checkpoint / RUN_FILE).read_text()))
    ledger = csv.read_csv(
        checkpoint / LEDGER,
        csv.ReadOptions(use_threads=False),
        csv.ParseOptions(delimiter="\t"),
        csv.ConvertOptions(include_columns=list(_OF_LEDGER), column_types=_OF_LEDGER),
    ).drop_null()  # a step that was passed over has no positions
    steps, firsts, lasts = (ledger[name].to_numpy() for name in _OF_LEDGER)
    return from_steps(Order(samples, run.training.seed), steps, firsts, lasts)


def from_steps(order: Order, steps: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> Draws:
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
