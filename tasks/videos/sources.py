"""Where raw videos come from: a folder, s3://bucket/prefix, or a list of files (`tasks/videos/source_lists.py`).

Lists and fetches them, and reads the text that belongs to each.
"""

import hashlib
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, groupby, islice, pairwise
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.storage import atomic, queries, sorting
from tasks.storage.object_cache import ObjectCache
from tasks.storage.sorting import Row
from tasks.videos import buckets, folders, sidecars, source_lists
from tasks.videos.folders import Entry
from tasks.videos.source_lists import Listed

CACHE = Path(".cache/media")  # objects of a bucket, by the sha256 of their bytes
UNLIMITED = ObjectCache(CACHE)
_LENT_PER_WORKER = 2
"""Objects that a shard holds at a time, per worker of its sandbox: one is decoded while the next one waits."""
SIDECAR = sidecars.SIDECAR
_GROUP_ROWS = queries.GROUP_ROWS
_MAX_KEY_BYTES = 1024  # of S3; what is asked for a longer one is an error of the store's
_WEB = ("http://", "https://")
_BYTES_PER_CHARACTER = 4  # at most, in UTF-8


ABSENT = (FileNotFoundError, PermissionError, buckets.Unavailable)
"""What `lend` raises where one file cannot be had: its row fails, and the stage goes on."""


NOT_THERE = ("not_found", "not_permitted", "archived", "object_broken")
"""Problems of an item that may be there in the next run: its row has failed; with any other it is rejected."""


class Item(NamedTuple):
    """One raw file of a source."""

    uri: str
    """Path below the folder, or s3://bucket/key."""
    size_bytes: int
    version: str
    """Changes when the content does, or the sidecar's: time of change, or the store's entity tag, of each."""
    sidecar: str | None
    """uri of the text beside it."""
    problem: str | None
    """Reason code if it must not be opened."""
    listed: Listed | None = None
    """Its row, if the source is a list."""


LISTING = pa.schema(
    [
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("version", pa.string()),
        ("sidecar", pa.string()),
        ("problem", pa.string()),
        # what the source's list says, as its bytes: it may be no text. Null in all rows if the source is none
        ("listed_uri", pa.binary()),
        ("listed_caption", pa.binary()),
        ("licence", pa.string()),
        ("source_url", pa.string()),
    ]
)
"""What `write_listing` writes: a row per item, sorted by uri."""

_LISTED_URI = LISTING.get_field_index("listed_uri")
_UNLISTED = (None,) * (len(LISTING) - _LISTED_URI)


def write_listing(source: str, path: Path) -> str:
    """Write every file of a source that is neither hidden nor a sidecar as a table of LISTING; return its hash.

    However many there are, some thousands are in memory at a time: what has to be sorted or paired is on the disk
    meanwhile, beside `path`.

    Args:
        path: file that is written, whole or not at all.

    Returns:
        one hash of the items, that of `listing_hash`.

    Raises:
        FileNotFoundError: no such folder, bucket or list.
        ValueError: nothing in it, or a list that cannot be read.
        ConnectionError: the store does not answer, or refuses.
    """
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(prefix=".listing-", dir=path.parent) as folder:
        if source_lists.is_list(source):
            rows = _list(source, Path(folder))
        elif source.startswith(buckets.PREFIX):
            rows = _paired(_objects_of(source), source, Path(folder))
        else:
            rows = _paired(_files_of(source), source, Path(folder))
        with atomic.atomic_write(path) as tmp_path, pq.ParquetWriter(tmp_path, LISTING, compression="zstd") as writer:
            while group := list(islice(rows, _GROUP_ROWS)):
                for row in group:
                    digest.update(repr(row).encode())
                columns = zip(zip(*group, strict=True), LISTING.types, strict=True)
                arrays = [pa.array(values, kind) for values, kind in columns]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=LISTING), _GROUP_ROWS)
    return digest.hexdigest()


def read_listing(path: Path) -> Iterator[Item]:
    """Give the items of a table of LISTING in order, a few thousand in memory at a time."""
    for batch in queries.read([path]):
        yield from map(item_of, batch.to_pylist())


def listing(source: str) -> list[Item]:
    """Return the items of `write_listing`.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: as `write_listing`.
    """
    with tempfile.TemporaryDirectory(prefix="stiv-listing-") as folder:
        path = Path(folder) / "listing"
        write_listing(source, path)
        return list(read_listing(path))


def listing_hash(items: Iterable[Item]) -> str:
    """Return one hash of what a source holds, so that work on other files is not gone on with."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr((*item[:-1], *(_columns_of(item.listed) if item.listed else _UNLISTED))).encode())
    return digest.hexdigest()


def item_of(row: dict[str, Any]) -> Item:
    """Return the item that a row of LISTING is of."""
    listed = None
    if row["listed_uri"] is not None:
        uri, caption = (_text(row[name]) for name in ("listed_uri", "listed_caption"))
        assert uri is not None
        listed = Listed(uri, caption, row["licence"], row["source_url"])
    return Item(row["uri"], row["size_bytes"], row["version"], row["sidecar"], row["problem"], listed)


def _columns_of(listed: Listed) -> Row:
    """Return what a list says of a file, as the last columns of LISTING."""
    return _bytes(listed.uri), _bytes(listed.caption), listed.licence, listed.source_url


def _bytes(text: str | None) -> bytes | None:
    """Return a text that may have halves of characters, which no column of texts can hold."""
    return None if text is None else text.encode(errors="surrogatepass")


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode(errors="surrogatepass")


def _files_of(source: str) -> Iterator[Entry]:
    root = Path(source).resolve()
    if not root.is_dir():
        raise FileNotFoundError(
            f"source is {source}, which is no folder (params.yaml: source); make it, or name a folder, "
            "s3://bucket/prefix, or a list in .csv, .jsonl or .parquet"
        )
    return folders.scan(root)


def _objects_of(source: str) -> Iterator[Entry]:
    bucket, prefix = buckets.split(source)
    skip = len(f"{buckets.PREFIX}{bucket}/{prefix}")
    for found in buckets.listing(source):
        below = found.uri[skip:]
        if "/." in f"/{below}" and any(part.startswith(".") for part in PurePosixPath(below).parts):
            continue  # hidden
        yield Entry(found.uri, found.size_bytes, found.tag, None)


def _paired(entries: Iterator[Entry], source: str, folder: Path) -> Iterator[Row]:
    """Give the rows of LISTING of what was found, in order, each with the text beside it.

    Raises:
        ValueError: nothing was found.
    """
    named = ((sidecars.composed(entry.uri), *entry) for entry in entries)
    alike = groupby(sorting.in_order(named, itemgetter(0), folder), itemgetter(0))
    groups = ([Entry._make(row[1:]) for row in group] for _, group in alike)
    rows = (
        (entry.uri, entry.size_bytes, entry.version, text, entry.problem, *_UNLISTED)
        for group in groups
        for entry, text in sidecars.paired(group)
    )
    found = sorting.in_order(rows, itemgetter(0), folder)
    if (first := next(found, None)) is None:
        raise ValueError(f"source is {source}, which holds no file (params.yaml: source); put videos there")
    return chain([first], found)


def _list(source: str, folder: Path) -> Iterator[Row]:
    """Give the rows of LISTING of every file that a list names, in order; one that is not there has a problem.

    Raises:
        FileNotFoundError, ValueError: there is no such list, or it is wrong.
    """
    content, written, wrong = Path(source), folder / "rows", list[ValueError]()
    if source.startswith(buckets.PREFIX):
        content = folder / "list"
        buckets.download(source, content)
    elif not content.is_file():
        raise FileNotFoundError(f"source is {source}, which is no file (params.yaml: source)")
    with content.open("rb") as file:
        sorting.write(written, _listed_rows(file, source, wrong))
    _refuse_twice(sorting.read(written), source, folder)
    if wrong:
        raise wrong[0]
    rows = sorting.in_order(sorting.read(written), itemgetter(0), folder)
    return (row for some in iter(lambda: list(islice(rows, _GROUP_ROWS)), []) for row in _looked_up(some))


def _listed_rows(file: BinaryIO, source: str, wrong: list[ValueError]) -> Iterator[Row]:
    """Give rows of LISTING of a list, not looked up, with number and whether they are to be, up to one that is wrong.

    Args:
        wrong: gets what is wrong with it.
    """
    root, count, local = _root(source), 0, None
    try:
        for number, listed in source_lists.rows(file, source):
            is_object = listed.uri.startswith(buckets.PREFIX)
            count, local = count + 1, local if local or is_object else listed.uri
            entry, is_remote = _listed_entry(listed.uri, root)
            yield *entry[:3], None, entry.problem, *_columns_of(listed), number, is_remote
    except ValueError as error:
        wrong.append(error)
    if local and source.startswith(buckets.PREFIX):
        wrong.append(ValueError(f"{source} names {local}: a list in a bucket names objects, as s3://bucket/key"))
    if not count:
        problem = f"source is {source}, a list without a row (params.yaml: source): it needs one for each video"
        wrong.append(ValueError(problem))


def _refuse_twice(rows: Iterator[Row], source: str, folder: Path) -> None:
    """Refuse a list that names a video twice.

    Raises:
        ValueError: the first row that names one again, and the one that did before.
    """
    named = sorting.in_order(((row[_LISTED_URI], row[-2]) for row in rows), itemgetter(0), folder)
    again = ((second[1], first) for first, second in pairwise(named) if first[0] == second[0])
    if earliest := min(again, default=None):
        second, (uri, first) = earliest
        raise source_lists.twice(source, _text(uri) or "", first, second)


def _looked_up(rows: list[Row]) -> Iterator[Row]:
    """Give rows of LISTING in order, with what the store says of those that are objects."""
    found = buckets.look_up(row[0] for row in rows if row[-1])
    for *row, _, is_remote in rows:
        if not is_remote:
            yield tuple(row)
        elif isinstance(one := next(found), str):
            yield row[0], 0, "", None, one, *row[_LISTED_URI:]
        else:
            yield row[0], one.size_bytes, one.tag, None, None, *row[_LISTED_URI:]


def _listed_entry(uri: str, root: Path) -> tuple[Entry, bool]:
    """Return the entry of a file that a list names, and whether it is an object that is to be looked up."""
    if (written := _written_out(uri)) != uri:
        return Entry(written, 0, "", "name_not_text"), False
    if uri.lower().startswith(_WEB):
        return Entry(uri, 0, "", "web_address"), False
    if not uri.startswith(buckets.PREFIX):
        return folders.look(folders.spelling(uri, root), root), False
    can_be_object = _can_be_object(uri)
    return Entry(uri, 0, "", None if can_be_object else "not_found"), can_be_object


def _can_be_object(uri: str) -> bool:
    bucket, _, key = uri.removeprefix(buckets.PREFIX).partition("/")
    return bool(bucket) and 0 < len(key.encode()) <= _MAX_KEY_BYTES


def _written_out(name: str) -> str:
    """Return a name with what no file's name, and no table, can hold written out: NUL and halves of characters."""
    return name.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def _root(source: str) -> Path:
    """Return the folder that files are relative to."""
    path = Path(source).resolve()
    return path.parent if source_lists.is_list(source) else path


def lent_at_once(source: str, workers: int) -> int:
    """Return how many files of a source a shard may hold at a time: of a folder all, as they take no room.

    Args:
        workers: of the shard's sandbox.
    """
    if source.startswith(buckets.PREFIX) or source_lists.is_list(source):
        return _LENT_PER_WORKER * workers
    return sys.maxsize


@contextmanager
def lend(source: str, uri: str, sha256: str | None, cache: ObjectCache) -> Iterator[Path]:
    """Give the file behind `uri` on this machine, which stays there as long as the context is open.

    A file of a folder is itself. An object of a bucket is fetched into `cache` under the sha256 of its bytes,
    unless it is there; `sha256` is what it must have.

    Raises:
        FileNotFoundError: no such file or object (any more).
        Unavailable: the object is archived, forbidden or broken.
        ValueError: the file lies outside the source, or the object's bytes have another sha256.
        ConnectionError: the store does not answer, or refuses.
    """
    if not uri.startswith(buckets.PREFIX):
        yield _inside(source, uri)
        return
    lease = cache.take(sha256) if sha256 else None
    if lease is None:
        size_bytes = buckets.size_of(uri)
        lease = cache.fetch(size_bytes, lambda path: buckets.download(uri, path, size_bytes))
    with lease as path:
        if sha256 and path.name != sha256:
            raise ValueError(f"{uri} has sha256 {path.name}, was {sha256}: it has changed since the stage videos ran")
        yield path


def _inside(source: str, uri: str) -> Path:
    """Return where a file of a folder is.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it lies outside.
    """
    root = _root(source)
    path = (root / uri).resolve(strict=True)
    if not folders.is_inside(path, root):
        raise ValueError(f"{uri} lies outside the source {source}")
    return path


def reason_of(error: OSError) -> str:
    """Return the reason code of a file that cannot be had, though others can: see ABSENT."""
    if isinstance(error, buckets.Unavailable):
        return error.reason
    return "not_permitted" if isinstance(error, PermissionError) else "not_found"


def delete(source: str, uri: str) -> None:
    """Delete one file or object of a source; one that is gone already is fine. Of a link, the link.

    Raises:
        ValueError: the file lies outside the source.
        PermissionError, ConnectionError: the source does not let go of it.
    """
    if uri.startswith(buckets.PREFIX):
        buckets.delete(uri)
        return
    root = _root(source)
    path = root / uri
    if not path.parent.resolve().is_relative_to(root):
        raise ValueError(f"{uri} lies outside the source {source}")
    path.unlink(missing_ok=True)


def caption_of(source: str, item: Item, max_characters: int) -> tuple[str | None, str | None]:
    """Return the item's text, normalised, and the reason code if it cannot be used.

    The text is the list's, or that of the file beside it. No or empty text is (None, None). Too long a text is not
    cut: half a caption would be trained on.
    """
    if item.listed:
        given = item.listed.caption or ""
        if not source_lists.is_utf8(given):
            return None, "caption_not_text"
        text = normalise(given)
    elif item.sidecar is None:
        return None, None
    else:
        limit = _BYTES_PER_CHARACTER * max_characters
        content = _head(source, item.sidecar, limit + 1)
        if len(content) > limit:
            return None, "caption_too_long"
        try:
            text = normalise(source_lists.decoded(content))
        except UnicodeDecodeError:
            return None, "caption_not_text"
    if len(text) > max_characters:
        return None, "caption_too_long"
    return text or None, None


_DIRECTIONS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])


def normalise(text: str) -> str:
    """Return the text in Unicode form NFC, without control characters, with single spaces.

    Marks that turn the direction of writing go too (bidirectional embeddings, overrides, isolates): with them a text
    reads otherwise than its characters stand, on every page that shows it.
    """
    composed = unicodedata.normalize("NFC", text).translate(_DIRECTIONS)
    return " ".join("".join(" " if unicodedata.category(one) == "Cc" else one for one in composed).split())


def _head(source: str, uri: str, size_bytes: int) -> bytes:
    if uri.startswith(buckets.PREFIX):
        return buckets.head(uri, size_bytes)
    with _inside(source, uri).open("rb") as file:
        return file.read(size_bytes)
