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
from typing import Any, BinaryIO, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from stiv_model.errors import redaction

SUFFIXES = (".csv", ".jsonl", ".parquet")
_ALIASES = {"license": "licence"}
_BATCH_ROWS = 4096
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
    """Return the rows of a list, as `rows`.

    Raises:
        ValueError: as `rows`, or it names a video twice; the message has the rows.
    """
    found, seen = [], dict[str, int]()
    for number, row in rows(io.BytesIO(content), name):
        if row.uri in seen:
            raise twice(name, row.uri, seen[row.uri], number)
        seen[row.uri] = number
        found.append(row)
    return found


def twice(name: str, uri: str, first: int, second: int) -> ValueError:
    """Return the error of a list that names a video in two of its rows."""
    return ValueError(f"{name}, rows {first} and {second}: {uri} is there twice: keep one")


def rows(file: BinaryIO, name: str) -> Iterator[tuple[int, Listed]]:
    """Give the rows of a list with their numbers, from 1; of a path, `./` and doubled slashes are taken out.

    Args:
        file: from its beginning, and able to go back there.
        name: of the file; its suffix tells the format.

    Raises:
        ValueError: it cannot be read, lacks the column uri or has a column twice, or has a password or a signature in
            a uri; the message has the row.
    """
    for number, row in _rows(file, name):
        texts = {column: _text(row.get(column), name, number, column) for column in Listed._fields}
        if not (texts["uri"] or "").strip():
            raise ValueError(f"{name}, row {number}: uri is empty: every row needs one")
        redaction.refuse(texts["uri"], f"{name}, row {number}: uri")
        if texts["source_url"]:
            texts["source_url"] = redaction.redact(texts["source_url"])  # shown and handed on with the clip
        yield number, Listed(**texts | {"uri": _plain(texts["uri"])})


def _plain(uri: str) -> str:
    """Return one spelling of a path: without spaces around it; `..` stays, as what it leaves may be a link."""
    uri = uri.strip()
    return uri if "://" in uri else str(PurePosixPath(uri))


def _rows(file: BinaryIO, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give each row's number, from 1, and its values by our names of the columns."""
    suffix = PurePosixPath(name).suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _parquet_rows(file, name)
        elif suffix == ".csv":
            yield from _csv_rows(file, name)
        else:
            # only at "\n": JSON may hold the other characters that str.splitlines takes for the end of a line
            lines = (line.removesuffix("\n") for line in _decoding(file, newline="\n"))
            yield from ((number, _object(line, name, number)) for number, line in enumerate(lines, 1) if line.strip())
    except (UnicodeDecodeError, csv.Error, pa.ArrowException, OSError) as error:
        raise ValueError(f"{name} cannot be read as {suffix[1:]}: {' '.join(str(error).split())}") from error


def _decoding(file: BinaryIO, newline: str) -> TextIO:
    """Return a file's text as `decoded` has it, a part of it in memory at a time."""
    begin = file.read(3)
    file.seek(0)
    return io.TextIOWrapper(file, _encoding(begin), newline=newline)


def _parquet_rows(file: BinaryIO, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with pq.ParquetFile(file) as opened:
        columns = _columns(opened.schema_arrow.names, name)
        batches = opened.iter_batches(_BATCH_ROWS, columns=list(columns.values()))
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from ((number, _renamed(row, columns)) for number, row in enumerate(rows, 1))


def _csv_rows(file: BinaryIO, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(_decoding(file, newline=""), strict=True)
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
    return content.decode(_encoding(content))


def _encoding(begin: bytes) -> str:
    return "utf-16" if len(begin) > 2 and begin.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"


def is_utf8(text: str) -> bool:
    """Say whether a text can be written as UTF-8: JSON can say half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
