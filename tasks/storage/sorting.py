"""Rows in order, of which a few thousand are in memory: sorted runs on the disk, which are merged.

For rows that Python makes anyway, one by one. The least that DuckDB sorts in is 100 MB.
"""

import heapq
import marshal
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Row = tuple[Any, ...]
"""Of texts, bytes, numbers and None."""

_RUN_ROWS = 10_000
_READ_ROWS = 200
"""Rows of a run that are in memory at a time."""
_RUNS = 128
"""Runs that are merged at a time, each an open file."""


def in_order(rows: Iterable[Row], key: Callable[[Row], Any], folder: Path) -> Iterator[Row]:
    """Give rows sorted by a key; those of one key in the order in which they came.

    Args:
        folder: for the runs.
    """
    left, levels, number = iter(rows), list[list[Path]]([[]]), 0
    with TemporaryDirectory(prefix="runs-", dir=folder) as own:
        while run := sorted(islice(left, _RUN_ROWS), key=key):
            level, made = 0, Path(own) / str(number)
            write(made, run)
            while len(levels[level]) == _RUNS - 1:  # earlier ones first, and each row is merged once a level
                full, levels[level] = [*levels[level], made], []
                level, made = level + 1, made.with_name(f"{level}-{number}")
                write(made, heapq.merge(*map(read, full), key=key))
                for done in full:
                    done.unlink()
                levels += [[]] if level == len(levels) else []
            levels[level].append(made)
            number += 1
        runs = [made for level in reversed(levels) for made in level]
        yield from heapq.merge(*map(read, runs), key=key)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows down for `read`, by this interpreter and no other."""
    left = iter(rows)
    with path.open("wb") as file:
        while some := list(islice(left, _READ_ROWS)):
            content = marshal.dumps(some)
            file.write(len(content).to_bytes(8, "little") + content)


def read(path: Path) -> Iterator[Row]:
    """Give the rows that `write` wrote, a few at a time."""
    with path.open("rb") as file:
        while length := file.read(8):
            yield from marshal.loads(file.read(int.from_bytes(length, "little")))
