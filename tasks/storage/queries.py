"""Tables that are too large to hold, asked by SQL: DuckDB within a limit of memory, spilling into the stage's own work.

What is in order already needs no database: `write` and `settle` read it as it passes, a few thousand rows at a time.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.storage import tables

GROUP_ROWS = 4096
"""Rows in a row group of a table. Fixed: the same rows are the same bytes, however they were cut into shards."""

_MEMORY = "256MB"
_SPILL = ".spill"
_SHOWN = 3  # keys, in a message


@contextmanager
def connect(work: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a database in memory that spills into `work` what does not fit, and keeps to its limit however many rows.

    Queries whose order matters must say so (ORDER BY): it does not keep the order of files by itself.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": _MEMORY,
        "temp_directory": str(work / _SPILL),
        "threads": 2,  # each sorts in a share of the memory of its own
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    with duckdb.connect(config=config) as connection:
        connection.execute("SET enable_progress_bar = false")  # it would be drawn in whatever the stage prints
        yield connection


def scan(files: Iterable[Path], numbered: bool = False) -> str:
    """Return SQL for the rows of Parquet files of the same columns.

    Args:
        numbered: with the column `file_row_number`, from 0.
    """
    listed = ", ".join(quoted(str(file)) for file in files)
    return f"read_parquet([{listed}]{', file_row_number = true' if numbered else ''})"


def quoted(text: str) -> str:
    """Return a text as SQL writes it, whatever is in it."""
    return "'" + text.replace("'", "''") + "'"


def double(value: float) -> str:
    """Return a number as SQL writes it, exactly: a literal with a point would be a DECIMAL, whose nearest double may be
    another."""
    return f"CAST('{value!r}' AS DOUBLE)"


def batches(connection: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Give the rows of a query as they come, a few thousand at a time, in the columns and types of `schema`."""
    for batch in connection.sql(query).to_arrow_reader(GROUP_ROWS):
        yield batch.select(schema.names).cast(schema)


def read(files: Iterable[Path], columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Give the rows of Parquet files, one file after the other, a few thousand at a time."""
    for file in files:
        with pq.ParquetFile(file, pre_buffer=False) as opened:  # else all of the file is read ahead, and stays
            yield from opened.iter_batches(GROUP_ROWS, columns=list(columns) if columns else None)


def even(rows: Iterable[pa.RecordBatch], schema: pa.Schema, group_rows: int = GROUP_ROWS) -> Iterator[pa.RecordBatch]:
    """Give the same rows in batches of `group_rows`, all but the last."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in rows:
        waiting.append(batch)
        count += len(batch)
        if count >= group_rows:
            whole = pa.Table.from_batches(waiting, schema).combine_chunks().to_batches()[0]
            for first in range(0, count - group_rows + 1, group_rows):
                yield whole.slice(first, group_rows)
            waiting, count = [whole.slice(count - count % group_rows)], count % group_rows
    if count:
        yield pa.Table.from_batches(waiting, schema).combine_chunks().to_batches()[0]


def write(path: Path, rows: Iterable[pa.RecordBatch], schema: pa.Schema, group_rows: int = GROUP_ROWS) -> int:
    """Write batches of rows as one table, whose bytes do not depend on how they were cut; return how many rows."""
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in even(rows, schema, group_rows):
            writer.write_batch(batch, group_rows)
            count += len(batch)
    return count


def outcomes(table: Path, key: str) -> Iterator[pa.RecordBatch]:
    """Give what became of each input of a stage, by the stage's table: the columns that `settle` needs."""
    return read([table], [key, "status", "reason"])


def named(table: Path, key: str) -> Iterator[dict[str, Any]]:
    """Give each input's key with its status and reason, for messages that name some."""
    for batch in outcomes(table, key):
        yield from batch.to_pylist()


def settle(unit: str, given: Iterable[pa.RecordBatch], rows: Iterable[pa.RecordBatch], key: str) -> tables.Account:
    """Count the outcomes of a stage's inputs as `tables.reconcile` does, while both pass by.

    Args:
        unit: what the inputs are, in the plural, for the account and its messages.
        given: with the column `key`: every input, in the order of the rows.
        rows: with the columns `key`, `status` and `reason`: the output.
        key: the column that names a row's input.

    Raises:
        AssertionError: as `tables.reconcile`.
    """
    states: Counter[tuple[str, str | None]] = Counter()
    wanted, found = _Keys(), _Keys()
    asked = iter(given)
    for batch in rows:
        named = batch.column(key)
        found.add(named)
        while wanted.waiting < len(named) and (more := next(asked, None)) is not None:
            wanted.add(more.column(key))
        wanted.drop_equal(found)
        _count(states, batch, key, unit)
    for batch in asked:
        wanted.add(batch.column(key))
    wanted.refuse_others(found, unit)
    return _account(unit, wanted.total, states)


def tally(unit: str, rows: Iterable[pa.RecordBatch], key: str) -> tables.Account:
    """Count the outcomes of rows that were given by nobody: what a stage has found, such as the shots of a video.

    Args:
        unit, rows, key: as of `settle`.

    Raises:
        AssertionError: a row has no status, or no reason that needs one.
    """
    states: Counter[tuple[str, str | None]] = Counter()
    for batch in rows:
        _count(states, batch, key, unit)
    return _account(unit, states.total(), states)


def _account(unit: str, given: int, states: "Counter[tuple[str, str | None]]") -> tables.Account:
    reasons: Counter[str] = Counter()
    for (_, reason), count in states.items():
        reasons[reason or ""] += count
    del reasons[""]
    by_status = {
        status: sum(count for (one, _), count in states.items() if one == status) for status in tables.STATUSES
    }
    by_count = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return tables.Account(unit, given, by_status["ok"], by_status["rejected"], by_status["failed"], by_count)


def _count(states: "Counter[tuple[str, str | None]]", batch: pa.RecordBatch, key: str, unit: str) -> None:
    """Add a batch's rows to the counts of (status, reason), after checking that each has a reason if it needs one."""
    grouped = pa.table({name: batch.column(name) for name in ("status", "reason")}).group_by(["status", "reason"])
    for row in grouped.aggregate([([], "count_all")]).to_pylist():
        status, reason = row["status"], row["reason"]
        if status not in tables.STATUSES or (reason is None) != (status == "ok"):
            one = next(one for one in batch.to_pylist() if (one["status"], one["reason"]) == (status, reason))
            assert status in tables.STATUSES, f"{unit} {one[key]}: status {status!r}"
            raise AssertionError(f"{unit} {one[key]}: {reason!r}")
        states[status, reason] += row["count_all"]


class _Keys:
    """Keys that pass by, of which those are held that were not met on the other side yet."""

    def __init__(self) -> None:
        self.total = 0
        self._held: list[pa.Array] = []

    @property
    def waiting(self) -> int:
        return sum(map(len, self._held))

    def add(self, keys: pa.Array) -> None:
        self.total += len(keys)
        if len(keys):
            self._held.append(keys)

    def drop_equal(self, other: "_Keys") -> None:
        """Drop what both hold from the beginning on, in the same order."""
        both = min(self.waiting, other.waiting)
        if not both:
            return
        own, others = (pa.chunked_array(keys._held) for keys in (self, other))
        if own.slice(0, both).equals(others.slice(0, both)):
            self._held, other._held = own.slice(both).chunks, others.slice(both).chunks

    def refuse_others(self, found: "_Keys", unit: str) -> None:
        """Raise unless what both hold still is the same, in whatever order."""
        mine, others = (Counter(key for held in keys._held for key in held.to_pylist()) for keys in (self, found))
        lost, extra = mine - others, others - mine
        assert not lost and not extra, (
            f"the account of {unit} does not balance: {lost.total()} without a row {sorted(lost)[:_SHOWN]}, "
            f"{extra.total()} rows too many {sorted(extra)[:_SHOWN]}"
        )
