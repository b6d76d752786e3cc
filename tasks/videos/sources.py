"""Where raw videos come from: a folder, s3://bucket/prefix, or a list of files (`tasks/videos/source_lists.py`).

Lists and fetches them, and reads the text that belongs to each.
"""

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.storage import atomic
from tasks.storage.object_cache import ObjectCache
from tasks.videos import buckets, source_lists
from tasks.videos.source_lists import Listed

CACHE = Path(".cache/media")  # objects of a bucket, by the sha256 of their bytes
UNLIMITED = ObjectCache(CACHE)
LENT_PER_WORKER = 2
"""Files that a shard holds at a time, per worker of its sandbox: one is decoded while the next one waits."""
SIDECAR = ".txt"
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
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

_GROUP_ROWS = 4096


def write_listing(source: str, path: Path) -> str:
    """Write every file of a source that is neither hidden nor a sidecar as a table of LISTING; return its hash.

    Args:
        path: file that is written, whole or not at all.

    Returns:
        one hash of the items, that of `listing_hash`.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: as `listing` says.
    """
    items = listing(source)
    rows = iter(items)
    with atomic.atomic_write(path) as tmp_path, pq.ParquetWriter(tmp_path, LISTING, compression="zstd") as writer:
        while group := [_row_of(item) for item in islice(rows, _GROUP_ROWS)]:
            writer.write_table(pa.Table.from_pylist(group, schema=LISTING))
    return listing_hash(items)


def read_listing(path: Path) -> Iterator[Item]:
    """Give the items of a table of LISTING in order, a few thousand in memory at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_GROUP_ROWS):
            yield from map(item_of, batch.to_pylist())


def item_of(row: dict[str, Any]) -> Item:
    """Return the item that a row of LISTING is of."""
    listed = None
    if row["listed_uri"] is not None:
        uri, caption = (_text(row[name]) for name in ("listed_uri", "listed_caption"))
        assert uri is not None
        listed = Listed(uri, caption, row["licence"], row["source_url"])
    return Item(row["uri"], row["size_bytes"], row["version"], row["sidecar"], row["problem"], listed)


def _row_of(item: Item) -> dict[str, Any]:
    row = dict(zip(LISTING.names, item[:5], strict=False))
    if item.listed:
        row |= {"licence": item.listed.licence, "source_url": item.listed.source_url}
        row |= {"listed_uri": _bytes(item.listed.uri), "listed_caption": _bytes(item.listed.caption)}
    return row


def _bytes(text: str | None) -> bytes | None:
    """Return a text that may have halves of characters, which no column of texts can hold."""
    return None if text is None else text.encode(errors="surrogatepass")


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode(errors="surrogatepass")


def listing(source: str) -> list[Item]:
    """Return every file of a source that is neither hidden nor a sidecar, sorted by uri, at any depth.

    Raises:
        FileNotFoundError: no such folder, bucket or list.
        ValueError: nothing in it, or a list that cannot be read.
        ConnectionError: the store does not answer, or refuses.
    """
    if source_lists.is_list(source):
        items = _listing_list(source)
    elif source.startswith(buckets.PREFIX):
        items = _listing_bucket(source)
    else:
        items = _listing_folder(source)
    if not items and source_lists.is_list(source):
        raise ValueError(f"source is {source}, a list without a row (params.yaml: source): it needs one for each video")
    if not items:
        raise ValueError(f"source is {source}, which holds no file (params.yaml: source); put videos there")
    return sorted(items, key=lambda item: item.uri)


def _listing_folder(source: str) -> list[Item]:
    root = Path(source).resolve()
    if not root.is_dir():
        raise FileNotFoundError(
            f"source is {source}, which is no folder (params.yaml: source); make it, or name a folder, "
            "s3://bucket/prefix, or a list in .csv, .jsonl or .parquet"
        )
    found: list[Item] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # os.walk enters no linked folder: one inside the source is listed where it is, one outside gets a row
        linked = [name for name in folders if Path(folder, name).is_symlink()]
        for name in [*files, *linked]:
            path = Path(folder, name)
            if name.startswith(".") or (name in linked and _problem(path, root) != "outside_source"):
                continue
            found.append(_named_item(path.relative_to(root).as_posix(), root))
    return _paired(found)


def _named_item(uri: str, root: Path) -> Item:
    """Return the item of a file in a folder; a name that is not UTF-8 is written out in bytes, and not used."""
    try:
        uri.encode()
    except UnicodeEncodeError:
        return Item(os.fsencode(uri).decode(errors="backslashreplace"), 0, "", None, "name_not_text")
    return _file_item(uri, root)


def _file_item(uri: str, root: Path) -> Item:
    path = root / uri
    problem = _problem(path, root)
    if problem in ("not_found", "not_permitted"):
        return Item(uri, 0, "", None, problem)
    status = path.lstat() if problem else path.stat()
    return Item(uri, status.st_size, str(status.st_mtime_ns), None, problem)


def _problem(path: Path, root: Path) -> str | None:
    target = Path(os.path.realpath(path))  # Path.resolve raises on a link to itself
    if not _is_inside(target, root):
        return "outside_source"
    try:
        mode = target.stat().st_mode
    except PermissionError:
        return "not_permitted"
    except OSError as error:
        if error.errno in _NO_SUCH_FILE:
            return "not_found"
        raise
    return None if stat.S_ISREG(mode) else "not_a_file"


def _is_inside(target: Path, root: Path) -> bool:
    """Say whether a file lies in a source, or in DVC's cache, where DVC's own links lead (its cache.type symlink)."""
    if target.is_relative_to(root):
        return True
    cache = _dvc_cache(root)
    return cache is not None and target.is_relative_to(cache) and target.is_file()


@lru_cache(maxsize=8)
def _dvc_cache(root: Path) -> Path | None:
    """Return the cache of the DVC workspace that a folder is in, None if it is in none."""
    workspace = next((folder for folder in (root, *root.parents) if (folder / ".dvc").is_dir()), None)
    if workspace is None:
        return None
    config = ConfigParser(interpolation=None)
    with suppress(ConfigError):
        config.read([workspace / ".dvc" / name for name in ("config", "config.local")])
    return Path(os.path.realpath(workspace / ".dvc" / config.get("cache", "dir", fallback="cache")))


def _listing_bucket(source: str) -> list[Item]:
    bucket, prefix = buckets.split(source)
    skip = len(f"{buckets.PREFIX}{bucket}/{prefix}")
    objects = (
        found
        for found in buckets.listing(source)
        if not any(part.startswith(".") for part in PurePosixPath(found.uri[skip:]).parts)
    )
    return _paired([Item(found.uri, found.size_bytes, found.tag, None, None) for found in objects])


def _listing_list(source: str) -> list[Item]:
    """Look up every file that the list names; one that is not there is an item with a problem."""
    if source.startswith(buckets.PREFIX):
        rows = source_lists.read(buckets.head(source), source)
        if local := next((row.uri for row in rows if not row.uri.startswith(buckets.PREFIX)), None):
            raise ValueError(f"{source} names {local}: a list in a bucket names objects, as s3://bucket/key")
    else:
        if not Path(source).is_file():
            raise FileNotFoundError(f"source is {source}, which is no file (params.yaml: source)")
        rows = source_lists.read(Path(source).read_bytes(), source)
    usable = [row.uri for row in rows if _written_out(row.uri) == row.uri]
    remote = [uri for uri in usable if uri.startswith(buckets.PREFIX) and _can_be_object(uri)]
    objects = dict(zip(remote, buckets.look_up(remote), strict=True))
    return [_listed_item(row.uri, objects, _root(source))._replace(listed=row) for row in rows]


def _listed_item(uri: str, objects: dict[str, buckets.Object | str], root: Path) -> Item:
    if (written := _written_out(uri)) != uri:
        return Item(written, 0, "", None, "name_not_text")
    if uri.lower().startswith(_WEB):
        return Item(uri, 0, "", None, "web_address")
    if not uri.startswith(buckets.PREFIX):
        return _file_item(_spelling(uri, root), root)
    found = objects.get(uri, "not_found")
    if isinstance(found, str):
        return Item(uri, 0, "", None, found)
    return Item(uri, found.size_bytes, found.tag, None, None)


def _spelling(uri: str, root: Path) -> str:
    """Return the name that a listed file has on the disk: with its accents composed or not, as machines differ."""
    forms = (uri, *(unicodedata.normalize(form, uri) for form in ("NFC", "NFD")))
    return next((form for form in forms if os.path.lexists(root / form)), uri)


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


def _paired(found: list[Item]) -> list[Item]:
    """Note the sidecars at the files that they stand beside; one that stands alone is an item with a problem.

    Accents may be composed in one name and not in the other (as a Mac writes them), unless that makes two names one.
    """
    texts = {_stem(item.uri): item for item in found if item.uri.lower().endswith(SIDECAR)}
    composed: dict[str, list[Item]] = {}
    for stem, one in texts.items():
        composed.setdefault(unicodedata.normalize("NFC", stem), []).append(one)
    items, used = [], set[str]()
    for item in found:
        if item.uri.lower().endswith(SIDECAR):
            continue
        stem = _stem(item.uri)
        alike = composed.get(unicodedata.normalize("NFC", stem), [])
        text = texts.get(stem) or (alike[0] if len(alike) == 1 else None)
        items.append(_with_text(item, text))
        used.update([text.uri] if text else [])
    alone = [one for one in texts.values() if one.uri not in used]
    return items + [one._replace(problem=one.problem or "text_without_video") for one in alone]


def _with_text(item: Item, text: Item | None) -> Item:
    return item._replace(sidecar=text.uri, version=f"{item.version} {text.version}") if text else item


def _stem(uri: str) -> str:
    return uri.removesuffix(PurePosixPath(uri).suffix)


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
    if not _is_inside(path, root):
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


def listing_hash(items: Iterable[Item]) -> str:
    """Return one hash of what a source holds, so that work on other files is not gone on with."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(tuple(item)).encode())
    return digest.hexdigest()
