"""Which rows are those of an earlier table: two tables in the same order, compared while they pass by."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Batches = Iterable[pa.RecordBatch]


def matched(
    given: Batches, before: Batches, order: str, key: str, same: Sequence[str]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Give the rows that an earlier table has as well, and beside them its own, both in the order of `given`.

    What is held at a time is a few thousand rows, and those that have the same value of `order`.

    Args:
        given, before: rows that rise in the column `order`, by the bytes of its texts.
        order: a column of both, without nulls.
        key: a column of both that names a row; in `before`, each row by itself.
        same: columns of both in which a row must be as before. Null is as null; a number that is none (NaN) is as no
            other.
    """
    left = iter(before)
    waiting: pa.Table | None = None
    for batch in given:
        if not len(batch):
            continue
        last = batch[order][len(batch) - 1]
        while waiting is None or not len(waiting) or pc.less_equal(waiting[order][len(waiting) - 1], last).as_py():
            more = next(left, None)
            if more is None:
                break
            more = pa.Table.from_batches([more])
            waiting = more if waiting is None else pa.concat_tables([waiting, more])
        if waiting is None:
            return
        waiting = waiting.combine_chunks()
        yield _alike(pa.Table.from_batches([batch]), waiting, key, same)
        waiting = waiting.filter(pc.greater_equal(waiting[order], last))


def _alike(given: pa.Table, before: pa.Table, key: str, same: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    places = pc.index_in(given[key], value_set=before[key].combine_chunks())
    own, others = given.filter(pc.is_valid(places)), before.take(places.drop_null())
    is_same = np.ones(len(own), bool)
    for name in same:
        is_same &= _equal(own[name], others[name])
    mask = pa.array(is_same)
    return own.filter(mask), others.filter(mask)


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_nested(one.type):
        return np.array([a == b for a, b in zip(one.to_pylist(), other.to_pylist(), strict=True)], bool)
    are_null = pc.and_(pc.is_null(one), pc.is_null(other))
    return pc.or_(pc.fill_null(pc.equal(one, other), False), are_null).to_numpy(zero_copy_only=False)
