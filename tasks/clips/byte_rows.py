"""Columns of bytes as matrices, without a Python object for each row."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa


def gather(pieces: Iterable[tuple[np.ndarray, pa.Array]], count: int) -> tuple[np.ndarray, set[int]]:
    """Return values of bytes as one matrix, uint8 (count, bytes), and the lengths that there are.

    With several lengths the matrix is of no use; without a value it has no columns.

    Args:
        pieces: rows of the matrix, int64 (n,), and what belongs there, n values none of which is null.
    """
    found: np.ndarray | None = None
    lengths: set[int] = set()
    for places, values in pieces:
        if not len(values):
            continue
        ends = _offsets(values)
        lengths |= set(np.unique(np.diff(ends)).tolist())
        if len(lengths) != 1:
            continue
        (width,) = lengths
        found = np.empty((count, width), np.uint8) if found is None else found
        whole = np.frombuffer(values.buffers()[2] or b"", np.uint8)
        found[places] = whole[ends[0] : ends[-1]].reshape(len(values), width)
    return np.empty((count, 0), np.uint8) if found is None else found, lengths


def _offsets(values: pa.Array) -> np.ndarray:
    """Return where in its buffer each value begins, and where the last one ends."""
    return np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]
