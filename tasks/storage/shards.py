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
"""Rows in a row group of a joined table. Fixed: the same rows are the same bytes, however they were cut into shards."""

_REUSED = "taken"
"""Beginning of the name of the table with reused rows."""


class Shard(NamedTuple):
    """A part of a stage's work: some of its inputs, and the table of their rows."""

    path: Path
    """File of the table; it exists when the shard is done."""
    given: list[Any]
    """The inputs."""

    @property
    def is_done(self) -> bool:
        """Whether the table is written, which is whole then."""
        return self.path.exists()

    def write(self, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
        """Write the shard's rows; from then on it is done."""
        with atomic.atomic_write(self.path) as tmp_path:
            tables.write_rows(tmp_path, rows, schema)


def cut(work: Path, given: list[Any], size: float, weight: Callable[[Any], float] = lambda _: 1) -> list[Shard]:
    """Cut a stage's inputs, in their order, into shards that weigh at most `size`.

    Args:
        work: folder for the shards' tables.
        given: the inputs.
        weight: returns the weight of one input; without it 1, so that `size` counts inputs. One that weighs more than
            `size` is a shard of its own.
    """
    groups: list[list[Any]] = []
    total = float("inf")
    for item in given:
        own = weight(item)
        if total + own > size:
            groups.append([])
            total = 0
        groups[-1].append(item)
        total += own
    return [Shard(work / f"shard-{number:05d}.parquet", group) for number, group in enumerate(groups)]


def reused(work: Path, given: list[Any]) -> Shard:
    """Return the shard of the inputs whose rows an earlier run has made already (`tasks/storage/reuse.py`).

    Args:
        work: folder for the shards' tables.
        given: those inputs.
    """
    return Shard(work / f"{_REUSED}.parquet", given)


def rest(given: list[Any], reused: Shard) -> list[Any]:
    """Return the inputs of a stage without those of the shard `reused`, which are the same objects, in order.

    Raises:
        AssertionError: the shard has an input that is not among them.
    """
    ids = {id(item) for item in reused.given}
    left = [item for item in given if id(item) not in ids]
    assert len(left) + len(reused.given) == len(given), f"{len(reused.given)} of {len(given)} reused, {len(left)} left"
    return left


def order(keys: Iterable[str]) -> dict[str, int]:
    """Return the place of each key, counted from 0."""
    return {key: place for place, key in enumerate(keys)}


def rows(path: Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Give the rows of a table, a few thousand in memory at a time.

    Raises:
        ValueError: it has other columns than `schema`.
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
    """Write the rows of several shards' tables as one table, in the order of `key`.

    Args:
        paths: the shards' tables: in that order one after the other, and that of reused rows, which is merged in.
        out: file for the joined table.
        key: returns what a row is sorted by.
        group_rows: rows in memory at a time, and in a row group of the file.
    """
    paths = list(paths)
    cut_ones = chain.from_iterable(rows(path, schema) for path in paths if not path.name.startswith(_REUSED))
    runs = [cut_ones, *(rows(path, schema) for path in paths if path.name.startswith(_REUSED))]
    write(out, merge(*runs, key=key), schema, group_rows)


def write(out: Path, table: Iterable[dict[str, Any]], schema: pa.Schema, group_rows: int = _GROUP_ROWS) -> None:
    """Write rows as a table, `group_rows` of them in memory at a time."""
    left = iter(table)
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        while group := list(islice(left, group_rows)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
