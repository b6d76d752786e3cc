"""A stage's work in shards: each written whole, so that a killed stage goes on at what is missing."""

from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.storage import atomic, tables

_GROUP_ROWS = 4096
"""Of a joined table. Fixed: the same rows are the same bytes, however they were shared out."""

_TAKEN = "taken"


class Shard(NamedTuple):
    """A piece of a stage's input, and the table that its rows become."""

    path: Path
    given: list[Any]

    @property
    def is_done(self) -> bool:
        return self.path.exists()

    def write(self, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
        """Write the shard's rows; from then on it is done."""
        with atomic.atomic_write(self.path) as tmp_path:
            tables.write_rows(tmp_path, rows, schema)


def cut(work: Path, given: list[Any], size: float, weight: Callable[[Any], float] = lambda _: 1) -> list[Shard]:
    """Cut what a stage is given, in its order, into shards that weigh at most `size`, with their tables in `work`.

    Args:
        weight: of one thing: 1, so that `size` counts them, unless told otherwise. One that weighs more than `size`
            is a shard of its own.
    """
    groups: list[list[Any]] = []
    full = float("inf")
    for thing in given:
        heavy = weight(thing)
        if full + heavy > size:
            groups.append([])
            full = 0
        groups[-1].append(thing)
        full += heavy
    return [Shard(work / f"shard-{number:05d}.parquet", group) for number, group in enumerate(groups)]


def taken(work: Path, given: list[Any]) -> Shard:
    """Return the shard of what an earlier run has made already (`tasks/storage/reuse.py`)."""
    return Shard(work / f"{_TAKEN}.parquet", given)


def rest(given: list[Any], taken: Shard) -> list[Any]:
    """Return what is given without what is taken over, which are the same objects, in order.

    Raises:
        AssertionError: something is taken over that is not given.
    """
    ids = {id(thing) for thing in taken.given}
    left = [thing for thing in given if id(thing) not in ids]
    assert len(left) + len(taken.given) == len(given), f"{len(taken.given)} of {len(given)} taken, {len(left)} left"
    return left


def order(given: Iterable[str]) -> dict[str, int]:
    """Return the place of each thing in the order given."""
    return {name: place for place, name in enumerate(given)}


def rows(path: Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Give the rows of a table, a group of them in memory at a time.

    Raises:
        ValueError: its columns are others.
    """
    tables.check_columns(path, schema)
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_GROUP_ROWS):
            yield from batch.to_pylist()


def join(
    paths: Iterable[Path],
    out: Path,
    schema: pa.Schema,
    key: Callable[[dict[str, Any]], Any],
    group_rows: int = _GROUP_ROWS,
) -> None:
    """Write the rows of several tables as one, in the order of `key`, a group of rows in memory at a time.

    The tables of shards are in that order one after the other; that of the shard TAKEN is merged in.
    """
    paths = list(paths)
    cut_ones = chain.from_iterable(rows(path, schema) for path in paths if not path.name.startswith(_TAKEN))
    runs = [cut_ones, *(rows(path, schema) for path in paths if path.name.startswith(_TAKEN))]
    write(out, merge(*runs, key=key), schema, group_rows)


def write(out: Path, given: Iterable[dict[str, Any]], schema: pa.Schema, group_rows: int = _GROUP_ROWS) -> None:
    """Write rows as a table, a group of them in memory at a time."""
    left = iter(given)
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        while group := list(islice(left, group_rows)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
