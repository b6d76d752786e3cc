"""Clips with their captions, and what an earlier run has made of them: streams in the order of the clips' videos.

No table is held: all are in the same order, so that they are read beside each other, a few thousand rows at a time.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.storage import parts, queries, shards, tables

Numbers = Callable[[pa.Array], np.ndarray]
"""Returns of clips to which parts they belong."""


def clips(table: Path, captions: Path, columns: Sequence[str], said: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Give the clips that are ok and have a caption, in the order of their table.

    Args:
        table: of clips.
        captions: of captions.
        columns: of clips, `clip` among them.
        said: columns of captions.

    Raises:
        FileNotFoundError, ValueError: as `tables.require`; or a table is not in the order of its videos.
    """
    tables.require(table, tables.CLIPS)
    tables.require(captions, tables.CAPTIONS)
    yield from _together(_ordered(table, columns), _ordered(captions, ("clip", *said)), said)


def with_categories(clips: Iterable[pa.RecordBatch], categories: Path) -> Iterator[pa.RecordBatch]:
    """Give clips with the columns `category` and `category_weight`, which are null where there is no weight.

    Raises:
        FileNotFoundError, ValueError: as `tables.require`; or the table is not in the order of its videos.
    """
    tables.require(categories, tables.CATEGORIES)
    told = ("category", "weight")
    numbered = ((_numbers(batch["clip"]), batch) for batch in clips)
    for batch in _together(numbered, _ordered(categories, ("clip", *told), only_ok=False), told):
        *others, category, weight = batch.columns
        names = [*batch.schema.names[: len(others)], "category", "category_weight"]
        weighed = pc.if_else(weight.is_valid(), category, None)
        yield pa.RecordBatch.from_arrays([*others, weighed, weight], names=names)


def _together(left: shards.Keyed, texts: shards.Keyed, said: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Give rows with what others, in the same order, say of their clips, but those of which nothing is said."""
    texts = iter(texts)
    waiting, upto = pa.table([], pa.schema([])), -1
    for numbers, batch in left:
        read = [] if not waiting.num_rows else [waiting]
        while upto <= numbers[-1] and (more := next(texts, None)) is not None:
            upto = int(more[0][-1])
            read.append(pa.Table.from_batches([more[1]]))
        if not read:
            continue
        waiting = pa.concat_tables(read).combine_chunks()
        places = pc.index_in(batch["clip"], waiting["clip"].combine_chunks())
        found = places.is_valid()
        told = waiting.select(list(said)).take(places.filter(found)).combine_chunks()
        joined = pa.Table.from_batches([batch.filter(found)])
        for name in said:
            joined = joined.append_column(told.schema.field(name), told[name])
        yield from joined.combine_chunks().to_batches()
        waiting = waiting.filter(pa.array(_numbers(waiting["clip"]) >= numbers[-1]))


def _ordered(table: Path, columns: Sequence[str], only_ok: bool = True) -> shards.Keyed:
    """Give the rows, or those that are ok, with numbers that rise with their videos."""
    last = -1
    for batch in queries.read([table], list(dict.fromkeys(["status", *columns]))):
        usable = (batch.filter(pc.equal(batch["status"], "ok")) if only_ok else batch).select(list(columns))
        if not len(usable):
            continue
        numbers = _numbers(usable["clip"])
        if numbers[0] < last or (np.diff(numbers) < 0).any():
            raise ValueError(f"{table} is not in the order of its videos: run the stage that makes it again")
        last = int(numbers[-1])
        yield numbers, usable


def _numbers(names: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return parts.numbers(names.to_pylist(), parts.MOST)


def digests(rows: Iterable[pa.RecordBatch], numbers: Numbers) -> dict[int, bytes]:
    """Return of each part a hash of its rows, in their order.

    Args:
        rows: of texts, `clip` among them, with those of a part one after the other.
    """
    found: dict[int, bytes] = {}
    current, digest = -1, hashlib.sha256()
    for batch in rows:
        names = batch.schema.names
        for part, *said in zip(
            numbers(batch["clip"]).tolist(), *(batch[name].to_pylist() for name in names), strict=True
        ):
            if part != current:
                current, digest = part, hashlib.sha256()
            digest.update(repr(said).encode())
            found[part] = digest.digest()
    return found


def of_parts(rows: Iterable[pa.RecordBatch], numbers: Numbers, wanted: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Give the rows of some parts."""
    for batch in rows:
        yield batch.filter(pa.array(np.isin(numbers(batch["clip"]), wanted)))


def beside(
    left: Iterable[pa.RecordBatch], right: Iterable[pa.RecordBatch], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Give the columns of a schema from two streams of the same clips, of `left` what it has.

    Raises:
        AssertionError: they are not of the same clips.
    """
    streams = (_even(rows) for rows in (left, right))
    for one, other in zip(*streams, strict=True):
        assert one["clip"].equals(other["clip"]), "two streams are not of the same clips"
        columns = [(one if name in one.schema.names else other)[name] for name in schema.names]
        yield pa.RecordBatch.from_arrays(columns, names=schema.names).cast(schema)


def _even(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    batches = iter(rows)
    if (first := next(batches, None)) is not None:
        yield from queries.even(chain([first], batches), first.schema)
