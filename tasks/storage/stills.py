"""The small pictures of shots: a folder of parts, each a table of schema STILLS, beside the table of shots."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.storage import atomic, parts, tables

FOLDER = "stills"
SUFFIX = ".parquet"

_GROUP_ROWS = 64
_AGAIN = "run stage shots again"


def write_part(folder: Path, part: int, rows: list[dict[str, Any]]) -> Path:
    """Write the stills of one part's shots, rows of schema STILLS in order, whole and on the disk; return the file."""
    path = folder / parts.file_name(part, SUFFIX)
    table = pa.Table.from_pylist(rows, schema=tables.STILLS)
    with atomic.atomic_write(path) as tmp_path:
        pq.write_table(table, tmp_path, compression="none", row_group_size=_GROUP_ROWS)  # JPEG does not shrink
    return path


def read(shots: Path, clips: Sequence[str]) -> dict[str, list[bytes]]:
    """Return the stills of some shots, JPEG bytes in order of time, by the shot's id.

    Args:
        shots: folder that stage shots made.
        clips: ids of shots that are ok.

    Raises:
        FileNotFoundError: there are no stills.
        ValueError: it has none of a shot, or is damaged; the message says which, and the remedy.
    """
    found = find(shots, clips)
    if missing := [clip for clip in clips if clip not in found]:
        raise ValueError(f"{shots / FOLDER} has no stills of {missing[:3]}: it belongs to other shots; {_AGAIN}")
    return {clip: found[clip] for clip in clips}


def find(shots: Path, clips: Sequence[str]) -> dict[str, list[bytes]]:
    """Return the stills of those of some shots that have any, as `read`."""
    folder = shots / FOLDER
    count = parts.count(folder)
    of_parts: dict[int, set[str]] = {}
    for clip in clips:
        of_parts.setdefault(parts.number(clip, count), set()).add(clip)
    found: dict[str, list[bytes]] = {}
    for part, wanted in sorted(of_parts.items()):
        for row in _rows(folder, part, count, wanted):
            found[row["clip"]] = row["stills"]
    return found


def hashes(shots: Path) -> dict[str, str]:
    """Return the sha256 of every part as it was written, by its path in the folder that stage shots made.

    Raises:
        FileNotFoundError, ValueError: as `parts.read`.
    """
    return {f"{FOLDER}/{name}": sha256 for name, sha256 in parts.read(shots / FOLDER).sha256.items()}


def _rows(folder: Path, part: int, count: int, wanted: set[str]) -> Iterator[dict[str, Any]]:
    """Give the rows of a part that are wanted.

    Raises:
        ValueError: the part has shots of another one, or other columns.
    """
    path = folder / parts.file_name(part, SUFFIX)
    if not path.exists():
        return
    tables.check_columns(path, tables.STILLS, _AGAIN)
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            names = file.read_row_group(group, columns=["clip"])["clip"].to_pylist()
            if others := [name for name in names if parts.number(name, count) != part]:
                raise ValueError(
                    f"{folder / parts.FILE} says {count} parts, but {path.name} has shot {others[0]} of another one: "
                    f"the number is chosen when the folder is made first, and cannot be changed by hand; {_AGAIN}"
                )
            if wanted.intersection(names):
                rows = file.read_row_group(group).to_pylist()
                yield from (row for row in rows if row["clip"] in wanted)


class Changes:
    """Which shots of a folder have other stills than an earlier folder has of them.

    Args:
        before, now: folders that stage shots made.
    """

    def __init__(self, before: Path, now: Path) -> None:
        self._before, self._now = before / FOLDER, now / FOLDER
        self._old, new = parts.read(self._before), parts.read(self._now)
        self._count = new.number
        self._is_same = np.zeros(new.number, bool)
        if self._old.number == new.number:
            for part in range(new.number):
                name = parts.file_name(part, SUFFIX)
                self._is_same[part] = name in new.sha256 and new.sha256[name] == self._old.sha256.get(name)

    def are_same(self, clips: pa.ChunkedArray) -> np.ndarray:
        """Say of each of these shots, rising, whether its stills are as they were: bool (clips,)."""
        names = clips.to_pylist()
        numbers = parts.numbers(names, self._count)
        found = self._is_same[numbers]
        for part in np.unique(numbers[~found]).tolist():
            same = self._same_of(part)
            for at in np.flatnonzero(numbers == part).tolist():
                found[at] = names[at] in same
        return found

    def _same_of(self, part: int) -> set[str]:
        now = dict(_hashes([self._now / parts.file_name(part, SUFFIX)]))
        numbers = sorted({parts.number(clip, self._old.number) for clip in now})
        before = dict(_hashes(self._before / parts.file_name(number, SUFFIX) for number in numbers))
        return {clip for clip, digest in now.items() if before.get(clip) == digest}


def _hashes(files: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """Give each shot with a hash of its stills; none of a file that is not there."""
    for path in files:
        if not path.exists():
            continue
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_GROUP_ROWS):
                for row in batch.to_pylist():
                    digest = hashlib.sha256()
                    for still in row["stills"]:
                        digest.update(len(still).to_bytes(8, "little") + still)
                    yield row["clip"], digest.digest()
