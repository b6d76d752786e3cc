"""A source given as a list: CSV, JSON lines or Parquet with one row per raw video.

Columns: `uri` (below the list's own folder, or s3://bucket/key), and where known `caption`, `licence` (or `license`)
and `source_url`. Others are ignored.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

SUFFIXES = (".csv", ".jsonl", ".parquet")
_ALIASES = {"license": "licence"}


class Listed(NamedTuple):
    """One row of a list; texts are None where the row has none."""

    uri: str
    caption: str | None
    licence: str | None
    source_url: str | None


def is_list(source: str) -> bool:
    return source.lower().endswith(SUFFIXES)


def read(content: bytes, name: str) -> list[Listed]:
    """Return the rows of a list.

    Args:
        content: of the file.
        name: of the file; its suffix tells the format.

    Raises:
        ValueError: it cannot be read, lacks the column uri, or names a video twice; the message has the row.
    """
    rows, seen = [], dict[str, int]()
    for number, row in _rows(content, name):
        named = {_ALIASES.get(column, column): value for column, value in row.items()}
        if not named.get("uri"):
            raise ValueError(f"{name}, row {number}: no uri, only {sorted(row)}: every row needs one")
        found = Listed(*(_text(named.get(column), name, number, column) for column in Listed._fields))
        if found.uri in seen:
            raise ValueError(f"{name}, rows {seen[found.uri]} and {number}: {found.uri} is there twice: keep one")
        seen[found.uri] = number
        rows.append(found)
    return rows


def _rows(content: bytes, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    suffix = PurePosixPath(name).suffix.lower()
    try:
        if suffix == ".parquet":
            table = pq.read_table(pa.BufferReader(content))
            columns = [column for column in table.schema.names if column in {*Listed._fields, *_ALIASES}]
            yield from enumerate(table.select(columns).to_pylist(), 1)
        elif suffix == ".csv":
            reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
            for number, row in enumerate(reader, 1):
                if None in row or None in row.values():
                    raise ValueError(f"{name}, row {number}: {len(reader.fieldnames or [])} columns expected")
                yield number, row
        else:
            lines = content.decode("utf-8-sig").splitlines()
            yield from ((number, _object(line, name, number)) for number, line in enumerate(lines, 1) if line.strip())
    except (UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise ValueError(f"{name} cannot be read as {suffix[1:]}: {error}") from error


def _object(line: str, name: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{name}, row {number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{name}, row {number} is no JSON object: {line[:80]}")
    return row


def _text(value: Any, name: str, number: int, column: str) -> Any:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name}, row {number}: {column} is {value!r}, which is no text")
    return value or None
