"""The small pictures of shots: a folder of parts, each a table of schema STILLS, beside the table of shots."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.storage import parts, tables

FOLDER = "stills"
SUFFIX = ".parquet"

_GROUP_ROWS = 64
_AGAIN = "run stage shots again"


def write_part(folder: Path, part: int, rows: list[dict[str, Any]]) -> Path:
    """Write the stills of one part's shots, rows of schema STILLS in order; return the file."""
    path = folder / parts.file_name(part, SUFFIX)
    table = pa.Table.from_pylist(rows, schema=tables.STILLS)
    pq.write_table(table, path, compression="none", row_group_size=_GROUP_ROWS)  # JPEG does not shrink
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
    count = parts.read(folder).number
    of_parts: dict[int, set[str]] = {}
    for clip in clips:
        of_parts.setdefault(parts.number(clip, count), set()).add(clip)
    found: dict[str, list[bytes]] = {}
    for part, wanted in sorted(of_parts.items()):
        for row in _rows(folder, part, count, wanted):
            found[row["clip"]] = row["stills"]
    return found


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


def changed(before: Path, now: Path) -> Iterator[str]:
    """Give the shots of a folder whose stills are not those that an earlier one has of them.

    Args:
        before, now: folders with a folder of stills each.
    """
    old, new = (parts.read(shots / FOLDER) for shots in (before, now))
    for path in parts.files(now / FOLDER, SUFFIX):
        if old.number == new.number and old.sha256.get(path.name) == new.sha256.get(path.name):
            continue
        found = dict(_hashes([path]))
        numbers = sorted({parts.number(clip, old.number) for clip in found})
        others = [before / FOLDER / parts.file_name(part, SUFFIX) for part in numbers]
        known = dict(_hashes(other for other in others if other.exists()))
        yield from (clip for clip, digest in found.items() if known.get(clip) != digest)


def _hashes(files: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """Give each shot with a hash of its stills."""
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_GROUP_ROWS):
                for row in batch.to_pylist():
                    digest = hashlib.sha256()
                    for still in row["stills"]:
                        digest.update(len(still).to_bytes(8, "little") + still)
                    yield row["clip"], digest.digest()
