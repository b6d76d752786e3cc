"""Columns of the table of latents, batch by batch: what is kept of a row is a few numbers, of a hundred million too.

Names of clips are read for their order and their hash, and then let go; `StoredNames` has them again by number.
Without torch: nobody waits for it at the door.
"""

import hashlib
import os
import tempfile
from binascii import unhexlify
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_ROWS_AT_ONCE = 1 << 14
_HEX = 64
"""Digits of a sha256."""


def count_rows(table: Path) -> int:
    """Return the number of rows of a Parquet file, by its footer."""
    return int(pq.read_metadata(table).num_rows)


def batches(table: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Give columns of a table, some ten thousand rows at a time."""
    with pq.ParquetFile(table, pre_buffer=False, buffer_size=1 << 16) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns), use_threads=False):
            yield batch
            pa.default_memory_pool().release_unused()  # it keeps several times of what it lends


def numbers(column: Any) -> np.ndarray:
    """Return a column of numbers without null, (rows,); `to_numpy` would import pandas, 44 MB of each rank."""
    return np.from_dlpack(column)


def take(column: Any, rows: np.ndarray) -> Any:
    """Return some rows, by their numbers (n,), of a column or a batch: from numpy, Arrow would import pandas."""
    wanted = np.ascontiguousarray(rows, np.uint64)
    return column.take(pa.Array.from_buffers(pa.uint64(), len(wanted), [None, pa.py_buffer(wanted)]))


def is_ok(batch: pa.RecordBatch) -> np.ndarray:
    """Return which rows can be trained on: bool (rows,)."""
    statuses = Numbered("ok")
    return statuses.numbers(batch["status"]) == 0


class Numbered:
    """Gives each text that it meets a number, in the order of meeting.

    Args:
        known: those that have the first numbers.
    """

    def __init__(self, *known: str) -> None:
        self._numbers = {text: number for number, text in enumerate(known)}

    @property
    def texts(self) -> list[str]:
        """The texts, in the order of their numbers."""
        return list(self._numbers)

    def numbers(self, column: pa.StringArray) -> np.ndarray:
        """Return the numbers of a column's texts (int32), -1 for null."""
        coded = column.dictionary_encode(null_encoding="encode")
        found = [self._number(text) for text in coded.dictionary.to_pylist()]
        return np.array(found, np.int32)[numbers(coded.indices)]

    def _number(self, text: str | None) -> int:
        return -1 if text is None else self._numbers.setdefault(text, len(self._numbers))


class Names:
    """Many names one behind the other: 8 bytes each, beside their own.

    Args:
        most: how many there will be at the most.
    """

    def __init__(self, most: int) -> None:
        self._text = bytearray()
        self._ends = np.zeros(most + 1, np.int64)
        self._count = 0

    def extend(self, names: pa.StringArray) -> None:
        """Take in more names, none of them null."""
        text, ends = _buffers(names)
        here = slice(self._count + 1, self._count + 1 + len(names))
        np.add(ends[1:], len(self._text) - ends[0], out=self._ends[here])
        self._text += text[ends[0] : ends[-1]]
        self._count += len(names)

    def array(self) -> pa.LargeStringArray:
        """Return them, without a copy: no more may be taken in."""
        return pa.LargeStringArray.from_buffers(self._count, pa.py_buffer(self._ends), pa.py_buffer(self._text))


def _buffers(names: Any) -> tuple[memoryview, np.ndarray]:
    """Return the text of a column, and where each name ends in it, with the start of the first before."""
    wide = names.cast(pa.large_string())
    _, ends, text = wide.buffers()
    return memoryview(text or b""), np.frombuffer(ends, np.int64, len(wide) + 1, 8 * wide.offset)


def in_order(names: pa.LargeStringArray) -> np.ndarray:
    """Return the numbers of names, (names,), sorted by the names' UTF-8."""
    return numbers(pc.sort_indices(names))


def repeated(names: pa.LargeStringArray, order: np.ndarray) -> Iterator[str]:
    """Give, in their order (n,), the names that stand behind their like."""
    for first in range(0, len(order), _ROWS_AT_ONCE):
        some = take(names, order[first : first + _ROWS_AT_ONCE + 1])
        behind = some[1:]
        yield from behind.filter(pc.equal(behind, some[:-1])).to_pylist()


def sha256_of(names: pa.LargeStringArray, order: np.ndarray) -> str:
    """Return the sha256 of names in an order (n,), each with a line break, in hexadecimal digits."""
    digest = hashlib.sha256()
    for first in range(0, len(order), _ROWS_AT_ONCE):
        text, ends = _buffers(take(names, order[first : first + _ROWS_AT_ONCE]))
        lines = np.insert(np.frombuffer(text[ends[0] : ends[-1]], np.uint8), ends[1:] - ends[0], ord("\n"))
        digest.update(lines.data)
    return digest.hexdigest()


def hashes(column: pa.StringArray) -> np.ndarray:
    """Return the bytes (n, 32) of sha256 values that a column has in hexadecimal digits.

    Raises:
        ValueError: a value is none.
    """
    text, ends = _buffers(column)
    if (np.diff(ends) != _HEX).any():
        raise ValueError(f"not all have {_HEX} digits")
    return np.frombuffer(unhexlify(text[ends[0] : ends[-1]]), np.uint8).reshape(len(column), _HEX // 2)


class StoredNames:
    """Names by number, on the disk: in a file without a name, which goes when this does.

    Raises:
        OSError: the folder of temporary files has no room.
    """

    def __init__(self, names: Iterable[pa.StringArray]) -> None:
        self._text, self._ends = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 (as long as this)
        self._ends.write(bytes(8))
        size = 0
        try:
            for some in names:
                text, ends = _buffers(some)
                self._text.write(text[ends[0] : ends[-1]])
                self._ends.write((ends[1:] - ends[0] + size).tobytes())
                size += int(ends[-1] - ends[0])
            self._text.flush()
            self._ends.flush()
        except OSError as error:
            place = tempfile.gettempdir()
            raise OSError(f"the names of the clips cannot be kept in {place} ({error}): set TMPDIR") from error

    def __getitem__(self, number: int) -> str:
        start, end = np.frombuffer(os.pread(self._ends.fileno(), 16, 8 * number), np.int64)
        return os.pread(self._text.fileno(), int(end - start), int(start)).decode()
