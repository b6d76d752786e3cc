"""Which clips can be trained on, and of those that are: little of each, so that a hundred million fit in a rank."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stiv_model.latents import table_columns
from stiv_model.latents.shard_files import AGAIN, Shards
from stiv_model.network.conditions import MICRO_CONDITIONS

_PLACES = ("shard", "row", "aesthetic")
_HASHES = ("sha256", "text_sha256")


class Sample(NamedTuple):
    """One clip as training sees it."""

    clip: str
    shard: str
    row: int
    micro: tuple[float, ...]


class Places(NamedTuple):
    """Where the samples are, in the order of their names."""

    numbers: np.ndarray
    """Of their rows among those that are ok."""
    sha256: str
    """Of their names, as `data_plan.Plan.samples_sha256` is."""
    shards: list[str]
    shard_numbers: np.ndarray
    rows: np.ndarray
    given: int
    """How many rows are ok."""
    micro: np.dtype
    """In which micro-conditions are kept."""


class Usable:
    """Where the clips are that can be trained on, by their numbers among the rows that are ok.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: it lacks a column; there is no such clip; or one has no place or score.
    """

    def __init__(self, table: Path):
        _check_columns(table)
        most, first = table_columns.count_rows(table), 0
        self.table = table
        names, shards = table_columns.Names(most), table_columns.Numbered()
        shard_numbers, rows, aesthetic = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most)
        micro = np.dtype(np.uint8)
        for batch in _ok(table, (*_PLACES, *MICRO_CONDITIONS)):
            here = slice(first, first := first + len(batch))
            names.extend(batch["clip"])
            shard_numbers[here] = shards.numbers(batch["shard"])
            rows[here], aesthetic[here] = map(table_columns.numbers, (batch["row"], batch["aesthetic"]))
            micro = np.result_type(micro, _smallest_type(_micro(batch)))
        if not first:
            raise ValueError(f"{table} has no usable clip: nothing to train on")
        self.clips, self.shards, self.micro = names.array(), shards.texts, micro
        self.shard_numbers, self.rows, self.aesthetic = shard_numbers[:first], rows[:first], aesthetic[:first]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def per_shard(self) -> dict[str, int]:
        """How many are in each shard, by its name."""
        return dict(zip(self.shards, np.bincount(self.shard_numbers).tolist(), strict=True))

    def in_order(self) -> np.ndarray:
        """Return their numbers in the order of their names, (clips,).

        Raises:
            ValueError: two have the same name.
        """
        order = table_columns.in_order(self.clips)
        if twice := next(table_columns.repeated(self.clips, order), None):
            raise ValueError(f"{self.table}: clip {twice} has more than one row that is ok: {AGAIN}")
        return order

    def places(self, chosen: np.ndarray) -> Places:
        """Return where some are, by their numbers (n,)."""
        sha256 = table_columns.sha256_of(self.clips, chosen)
        numbers = chosen.astype(np.min_scalar_type(len(self)))
        where = self.shards, self.shard_numbers[chosen], self.rows[chosen]
        return Places(numbers, sha256, *where, len(self), self.micro)

    def refuse_unreachable(self, shards: Shards) -> None:
        """Refuse clips that no shard has, or that have the place of another.

        Raises:
            ValueError: the clip, its row and the shard.
        """
        order = np.argsort(self.shard_numbers, kind="stable")
        for clips in np.split(order, np.cumsum(np.bincount(self.shard_numbers))[:-1]):
            number = self.shard_numbers[clips[0]]
            path, size = shards.path(number), shards.sizes[number]
            by_place = clips[np.argsort(self.rows[clips], kind="stable")]
            rows = self.rows[by_place]
            for at in (0, -1):
                if not 0 <= rows[at] < size:
                    clip = self.clips[by_place[at]]
                    raise ValueError(f"clip {clip} has row {rows[at]} of {path}, which has {size}: {AGAIN}")
            same = np.flatnonzero(np.diff(rows) == 0)
            if len(same):
                one, other = (self.clips[clip] for clip in by_place[same[0] : same[0] + 2])
                raise ValueError(f"clips {one} and {other} have the same row {rows[same[0]]} of {path}: {AGAIN}")


class Samples(Sequence[Sample]):
    """What a recipe trains on, sample by sample: some 90 bytes each, so that a hundred million fit in a rank.

    Raises:
        ValueError: a clip that is ok has no hash or micro-condition.
    """

    def __init__(self, table: Path, places: Places):
        self._table = table
        self.numbers, self.sha256, self.shards, self.shard_numbers, self.rows, given, micro = places
        self.hashes, self.text_hashes = (np.empty((len(self), 32), np.uint8) for _ in _HASHES)
        self.micro = np.empty((len(self), len(MICRO_CONDITIONS)), micro)
        self._fill(given)

    def _fill(self, given: int) -> None:
        samples = np.full(given, -1, np.min_scalar_type(-len(self)))
        samples[self.numbers] = np.arange(len(self))
        first = 0
        for batch in _ok(self._table, (*_HASHES, *MICRO_CONDITIONS)):
            here = samples[first : first + len(batch)]
            first += len(batch)
            is_sample = here >= 0
            self.micro[here[is_sample]] = _micro(batch)[is_sample]
            for name, hashes in zip(_HASHES, (self.hashes, self.text_hashes), strict=True):
                hashes[here[is_sample]] = _hashes(self._table, batch, name)[is_sample]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return Sample(
            self.clip(index),
            self.shards[self.shard_numbers[index]],
            int(self.rows[index]),
            tuple(self.micro[index].astype(float).tolist()),
        )

    def clip(self, index: int) -> str:
        """Return the name of a sample's clip."""
        return self._names[int(self.numbers[index])]

    @cached_property
    def _names(self) -> table_columns.StoredNames:
        return table_columns.StoredNames(batch["clip"] for batch in _ok(self._table, ()))


def _check_columns(table: Path) -> None:
    if not table.exists():
        raise FileNotFoundError(f"{table} does not exist: run stage latents first")
    needed = {*_PLACES, *_HASHES, *MICRO_CONDITIONS}
    if missing := sorted(needed - {*pq.read_schema(table).names}):
        raise ValueError(f"{table} has no column {missing[0]}: {AGAIN}")


def _ok(table: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Give clip and other columns of the rows that are ok.

    Raises:
        ValueError: one of them has no value.
    """
    for whole in table_columns.batches(table, ["clip", "status", *columns]):
        ok = np.flatnonzero(table_columns.is_ok(whole))
        batch = whole if len(ok) == len(whole) else table_columns.take(whole, ok)
        for name in columns:
            if batch[name].null_count:
                clip = batch["clip"].filter(batch[name].is_null())[0]
                raise ValueError(f"{table}: clip {clip} is ok but has no {name}: {AGAIN}")
        yield batch


def _micro(batch: pa.RecordBatch) -> np.ndarray:
    return np.stack([table_columns.numbers(batch[name]) for name in MICRO_CONDITIONS], 1)


def _smallest_type(values: np.ndarray) -> np.dtype:
    """Return the smallest type of whole numbers that has all of some values."""
    return np.result_type(*map(np.min_scalar_type, (values.min(initial=0), values.max(initial=0))))


def _hashes(table: Path, batch: pa.RecordBatch, name: str) -> np.ndarray:
    try:
        return table_columns.hashes(batch[name])
    except ValueError as error:
        raise ValueError(f"{table}: {name} of a clip is no sha256 ({error}): {AGAIN}") from None
