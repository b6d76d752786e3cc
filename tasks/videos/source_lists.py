"""A source given as a list: CSV, JSON lines or Parquet with one row per raw video.

Columns: `uri` (below the list's own folder, or s3://bucket/key), and where known `caption`, `licence` (or `license`)
and `source_url`, in any case and with spaces around. Others are ignored. A password or a signature
in a `source_url` is taken out; a uri that has one is refused.
"""

import csv
import io
import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stiv_model.errors import redaction

SUFFIXES = (".csv", ".jsonl", ".parquet")
_ALIASES = {"license": "licence"}
_SHOWN = 80  # characters of a wrong value


class Listed(NamedTuple):
    """One row of a list; texts are None where the row has none."""

    uri: str
    caption: str | None
    licence: str | None
    source_url: str | None


def is_list(source: str) -> bool:
    return source.lower().endswith(SUFFIXES)


def read(content: bytes, name: str) -> list[Listed]:
    """Return the rows of a list; of a path below the list's folder, `./` and doubled slashes are taken out.

    Args:
        content: of the file.
        name: of the file; its suffix tells the format.

    Raises:
        ValueError: it cannot be read, lacks the column uri or has a column twice, names a video twice, or has a
            password or a signature in a uri; the message has the row.
    """
    rows, seen = [], dict[str, int]()
    for number, row in _rows(content, name):
        texts = {column: _text(row.get(column), name, number, column) for column in Listed._fields}
        if not (texts["uri"] or "").strip():
            raise ValueError(f"{name}, row {number}: uri is empty: every row needs one")
        redaction.refuse(texts["uri"], f"{name}, row {number}: uri")
        if texts["source_url"]:
            texts["source_url"] = redaction.redact(texts["source_url"])  # shown and handed on with the clip
        found = Listed(**texts | {"uri": _plain(texts["uri"])})
        if found.uri in seen:
            raise ValueError(f"{name}, rows {seen[found.uri]} and {number}: {found.uri} is there twice: keep one")
        seen[found.uri] = number
        rows.append(found)
    return rows


def _plain(uri: str) -> str:
    """Return one spelling of a path: without spaces around it; `..` stays, as what it leaves may be a link."""
    uri = uri.strip()
    return uri if "://" in uri else str(PurePosixPath(uri))


def _rows(content: bytes, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give each row's number, from 1, and its values by our names of the columns."""
    suffix = PurePosixPath(name).suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _parquet_rows(content, name)
        elif suffix == ".csv":
            yield from _csv_rows(content, name)
        else:
            # only at "\n": JSON may hold the other characters that str.splitlines takes for the end of a line
            lines = decoded(content).split("\n")
            yield from ((number, _object(line, name, number)) for number, line in enumerate(lines, 1) if line.strip())
    except (UnicodeDecodeError, csv.Error, pa.ArrowException, OSError) as error:
        raise ValueError(f"{name} cannot be read as {suffix[1:]}: {' '.join(str(error).split())}") from error


def _parquet_rows(content: bytes, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        columns = _columns(file.schema_arrow.names, name)
        rows = file.read(list(columns.values())).to_pylist()
    yield from ((number, _renamed(row, columns)) for number, row in enumerate(rows, 1))


def _csv_rows(content: bytes, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(decoded(content), newline=""), strict=True)
    if not reader.fieldnames:
        return
    columns = _columns(reader.fieldnames, name)
    for number, row in enumerate(reader, 1):
        if None in row or None in row.values():
            raise ValueError(f"{name}, row {number}: {len(reader.fieldnames)} columns expected")
        yield number, _renamed(row, columns)


def _object(line: str, name: str, number: int) -> dict[str, Any]:
    place = f"{name}, row {number}"
    try:
        row = json.loads(line, object_pairs_hook=_unrepeated)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place} is no JSON object: {line[:_SHOWN]}")
    return _renamed(row, _columns(row, place))


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is there twice: keep one")
    return found


def _columns(names: Iterable[str], place: str) -> dict[str, str]:
    """Return by what name the list has each of our columns, those that it has.

    Raises:
        ValueError: it has none for uri, or two for one.
    """
    names = list(names)
    found: dict[str, str] = {}
    for name in names:
        plain = name.strip().casefold()
        column = _ALIASES.get(plain, plain)
        if column in found:
            raise ValueError(f"{place}: columns {found[column]!r} and {name!r} are both the {column}: keep one")
        if column in Listed._fields:
            found[column] = name
    if "uri" not in found:
        raise ValueError(f"{place}: no column uri, only {names}: every list needs one")
    return found


def _renamed(row: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    return {column: row[name] for column, name in columns.items()}


def _text(value: Any, name: str, number: int, column: str) -> Any:
    """Return the value of one column; a uri or caption in no proper Unicode is for `sources` to refuse, by the row."""
    if value is not None and not (isinstance(value, str) and (column in ("uri", "caption") or is_utf8(value))):
        raise ValueError(f"{name}, row {number}: {column} is {repr(value)[:_SHOWN]}, which is no text")
    return value or None


def decoded(content: bytes) -> str:
    """Return a text in UTF-8, with or without its mark, or in UTF-16 with its mark, as Windows writes "Unicode".

    Raises:
        UnicodeDecodeError: it is in neither.
    """
    is_utf16 = len(content) > 2 and content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig")


def is_utf8(text: str) -> bool:
    """Say whether a text can be written as UTF-8: JSON can say half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
