"""A stage's work in shards: each written whole, so that a killed stage goes on at what is missing.

What a stage is given lies in one file, row by row; a shard is a place in it, some rows one after the other. Nobody
holds the rows of more than a shard.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.storage import atomic, queries, tables

log = logging.getLogger(__name__)

MOST = 2000
"""Shards of a stage at most: each costs the engine some hundredths of a second and some memory."""

PLACE = "place"
"""Column that numbers what a stage is given, from 0."""


def placed(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a table of rows that are reused: PLACE, of the input that each row is of, and its own."""
    return pa.schema([pa.field(PLACE, pa.int64()), *schema])


def placed_rows(
    given: pa.Table, made: pa.Table, schema: pa.Schema, as_given: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """Give rows that are reused, in the columns of `placed(schema)`.

    Args:
        given: inputs, with their PLACE.
        made: the row of each, of an earlier run.
        as_given: columns that are taken from the input.
    """
    columns = [(given if name in as_given else made)[name] for name in schema.names]
    yield from pa.Table.from_arrays([given[PLACE], *columns], schema=placed(schema)).to_batches()


class Shard(NamedTuple):
    """A part of a stage's work: some of its inputs, and the table of their rows."""

    path: Path
    """File of the table; it exists when the shard is done."""
    given: Path
    """File of the stage's inputs."""
    first: int
    """Row of the shard's first input there."""
    inputs: int
    """How many it has."""
    weight: float
    """Of all of them."""

    @property
    def is_done(self) -> bool:
        """Whether the table is written, which is whole then."""
        return self.path.exists()

    def read(self) -> list[dict[str, Any]]:
        """Return the inputs, a row each, in order."""
        return [row for batch in batches_of(self) for row in batch.to_pylist()]

    def write(self, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
        """Write the shard's rows; from then on it is done."""
        with atomic.atomic_write(self.path) as tmp_path:
            tables.write_rows(tmp_path, rows, schema)


class Work(NamedTuple):
    """What a stage works on: all that it is given, what of it an earlier run has made, and the shards of the rest."""

    given: Path
    """File of all inputs, with their PLACE."""
    reused: Path | None
    """Table of the rows that an earlier run has made, with their PLACE; None if there are none."""
    todo: Path
    """File of the inputs that are not reused, with their PLACE."""
    parts: list[Shard]
    reusable: Path
    """Folder of what the earlier run has made; it may not be there."""

    def keys(self, *columns: str) -> Iterator[pa.RecordBatch]:
        """Give all that the stage was given, in order, in some of its columns."""
        return read_given(self.given, columns)


def write_given(path: Path, given: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write what a stage is given as a file that is read by row numbers; the column PLACE is added.

    Args:
        given: batches of rows, in order, with the columns of `schema`.
    """
    whole = schema.append(pa.field(PLACE, pa.int64()))
    place = 0

    def numbered() -> Iterator[pa.RecordBatch]:
        nonlocal place
        for batch in given:
            if not batch.schema.equals(schema):
                batch = batch.select(schema.names).cast(schema)
            places = pa.array(np.arange(place, place + len(batch)))
            place += len(batch)
            yield pa.RecordBatch.from_arrays([*batch.columns, places], schema=whole)

    with atomic.atomic_write(path) as tmp_path:
        _write_file(tmp_path, numbered(), whole)


# columns are small: to hand each to a thread costs more than to compress it
_WRITING = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READING = pa.ipc.IpcReadOptions(use_threads=False)


def _write_file(path: Path, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    with pa.ipc.new_file(path, schema, options=_WRITING) as writer:
        for batch in queries.even(rows, schema):
            writer.write_batch(batch)


def read_given(path: Path, columns: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Give the rows of a file of `write_given` in order, of the named columns, of all if none is named."""
    with pa.memory_map(str(path)) as source:
        wanted = [pa.ipc.open_file(source).schema.get_field_index(name) for name in columns] or None
        file = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False))
        for number in range(file.num_record_batches):
            yield file.get_batch(number)


def batches_of(shard: Shard) -> Iterator[pa.RecordBatch]:
    """Give a shard's inputs, a few thousand at a time."""
    first, count = shard.first, shard.inputs
    with pa.memory_map(str(shard.given)) as source:
        file = pa.ipc.open_file(source, options=_READING)
        while count:
            number, skip = divmod(first, queries.GROUP_ROWS)  # every batch but the last has as many rows
            batch = file.get_batch(number).slice(skip, count)
            yield batch
            first, count = first + len(batch), count - len(batch)


def rest(given: Path, reused: Path, todo: Path) -> int:
    """Write the inputs whose PLACE is not in the table `reused`, in order; return how many are in it.

    Raises:
        AssertionError: the table has a place that is none, or one twice.
    """
    is_reused, count = np.zeros(_count(given), bool), 0
    for batch in queries.read([reused], [PLACE]):
        is_reused[batch.column(0).to_numpy()] = True
        count += len(batch)
    assert count == is_reused.sum(), f"{reused} has {count} rows of {is_reused.sum()} inputs"
    with pa.memory_map(str(given)) as source:
        schema = pa.ipc.open_file(source).schema
    left = (batch.filter(pa.array(~is_reused[_places(batch)])) for batch in read_given(given))
    with atomic.atomic_write(todo) as tmp_path:
        _write_file(tmp_path, left, schema)
    return count


def _places(batch: pa.RecordBatch) -> np.ndarray:
    return batch.column(PLACE).to_numpy()


def _count(given: Path) -> int:
    return sum(len(batch) for batch in read_given(given, [PLACE]))


def cut(work: Path, given: Path, size: float, weight: str | None = None, together: str | None = None) -> list[Shard]:
    """Cut a stage's inputs, in their order, into shards that weigh at most `size`, and into MOST of them at most.

    Args:
        work: folder for the shards' tables.
        given: file of the inputs.
        weight: the column that says what an input weighs; without it 1, so that `size` counts inputs. What weighs more
            than `size` is a shard of its own; where there would be more than MOST, shards are larger.
        together: a column; inputs that have the same there, one after the other, are in one shard.
    """
    weights, starts = _weights(given, weight, together)
    firsts = _cut(weights, size)
    while len(firsts) > MOST:
        size = size * max(1.01, len(firsts) / MOST)
        firsts = _cut(weights, size)
    if firsts and size:
        log.debug("%d shards of %.4g at most", len(firsts), size)
    edges = [*(int(starts[first]) for first in firsts), int(starts[-1])]
    sums = np.concatenate([[0.0], np.cumsum(weights)])[[*firsts, len(weights)]]
    return [
        Shard(work / f"shard-{number:05d}.parquet", given, first, last - first, float(sums[number + 1] - sums[number]))
        for number, (first, last) in enumerate(pairwise(edges))
    ]


def done(work: Path) -> list[Path]:
    """Return the tables of the shards that are done.

    Args:
        work: folder as of `cut`.
    """
    return sorted(work.glob("shard-*.parquet"))


def _weights(given: Path, weight: str | None, together: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return what each input weighs, or all that belong together, and the row where each begins, with the end."""
    columns = [name for name in (weight, together) if name] or [PLACE]
    weights, keys = [np.zeros(0)], [np.zeros(0, np.int64)]
    for batch in read_given(given, columns):
        weights.append(batch.column(weight).to_numpy().astype(float) if weight else np.ones(len(batch)))
        keys.append(batch.column(together).to_numpy() if together else np.zeros(len(batch), np.int64))
    each, key = np.concatenate(weights), np.concatenate(keys)
    if together is None:
        return each, np.arange(len(each) + 1)
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.zeros(0, np.int64)
    return np.add.reduceat(each, starts) if len(starts) else each, np.append(starts, len(each))


def _cut(weights: np.ndarray, size: float) -> list[int]:
    """Return where shards begin."""
    if (weights == 1).all():
        return list(range(0, len(weights), max(1, int(size))))
    firsts: list[int] = []
    total = float("inf")
    for number, own in enumerate(weights.tolist()):
        if total + own > size:
            firsts.append(number)
            total = 0
        total += own
    return firsts


def rows(path: Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Give the rows of a table, a few thousand in memory at a time.

    Raises:
        ValueError: it has other columns than `schema`.
    """
    tables.check_columns(path, schema)
    for batch in queries.read([path]):
        yield from batch.to_pylist()


def joined(work: Work, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Give the rows of a stage that makes one for each input, in the order of the inputs: those of shards and reused.

    Raises:
        ValueError: a shard's table has other columns.
    """
    made = merge_keyed(read_given(work.todo, [PLACE]), table_batches([part.path for part in work.parts], schema))
    if work.reused is None:
        yield from (batch for _, batch in made)
        return
    before = ((_places(batch), batch.select(schema.names).cast(schema)) for batch in queries.read([work.reused]))
    yield from merge([made, before])


def table_batches(paths: Iterable[Path], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Give the rows of several tables, one after the other.

    Raises:
        ValueError: one has other columns than `schema`.
    """
    for path in paths:
        tables.check_columns(path, schema)
        yield from queries.read([path])


Keyed = Iterator[tuple[np.ndarray, pa.RecordBatch]]
"""Batches of rows, each with the number by which its rows are ordered, rising."""


def merge_keyed(places: Iterable[pa.RecordBatch], rows_of: Iterable[pa.RecordBatch]) -> Keyed:
    """Give batches of rows with the numbers that stand at the same places of another stream, its only column.

    Where one is longer, some shard is wrong, which the stage's account finds (`queries.settle`).
    """
    waiting, numbers = np.zeros(0, np.int64), iter(places)
    for batch in rows_of:
        while len(waiting) < len(batch):
            more = next(numbers, None)
            beyond = np.full(len(batch) - len(waiting), np.iinfo(np.int64).max)
            waiting = np.concatenate([waiting, beyond if more is None else more.column(0).to_numpy()])
        yield waiting[: len(batch)], batch
        waiting = waiting[len(batch) :]


def merge(streams: Sequence[Keyed]) -> Iterator[pa.RecordBatch]:
    """Give the rows of several ordered streams as one; of equal numbers, the first stream's come first."""
    heads = [_next(stream) for stream in streams]
    while any(head is not None for head in heads):
        last = min(int(head[0][-1]) for head in heads if head is not None)
        numbers: list[np.ndarray] = []
        ready: list[pa.RecordBatch] = []
        for at, head in enumerate(heads):
            if head is None:
                continue
            keys, batch = head
            upto = int(np.searchsorted(keys, last, side="right"))
            if upto:
                numbers.append(keys[:upto])
                ready.append(batch.slice(0, upto))
            heads[at] = (keys[upto:], batch.slice(upto)) if upto < len(keys) else _next(streams[at])
        order = np.argsort(np.concatenate(numbers), kind="stable")
        together = pa.Table.from_batches(ready).combine_chunks()
        yield from together.take(pa.array(order)).to_batches()


def _next(stream: Keyed) -> tuple[np.ndarray, pa.RecordBatch] | None:
    return next((one for one in stream if len(one[0])), None)


def forget(work: Path, reasons: Collection[str]) -> None:
    """Delete the tables of shards in which a row has one of some reasons, so that they are worked on again.

    Args:
        work: folder of the shards' tables.
    """
    for path in done(work):
        if not set(reasons).isdisjoint(pq.read_table(path, columns=["reason"])["reason"].to_pylist()):
            path.unlink()
