"""Where raw videos come from: a folder, or s3://bucket/prefix. Lists and fetches them, reads the text beside.

Buckets are reached by boto3 with the standard AWS variables and files; AWS_ENDPOINT_URL names another store.
"""

import hashlib
import os
import tempfile
import unicodedata
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tasks import resume

CACHE = Path(".cache/media")  # objects of a bucket, by the sha256 of their bytes
SIDECAR = ".txt"
_S3 = "s3://"
_BYTES_PER_CHARACTER = 4  # at most, in UTF-8


class Item(NamedTuple):
    """One raw file of a source."""

    uri: str
    """Path below the folder, or s3://bucket/key."""
    size_bytes: int
    version: str
    """Changes when the content does: time of change, or the store's entity tag."""
    sidecar: str | None
    """uri of the text beside it."""
    problem: str | None
    """Reason code if it must not be opened."""


@lru_cache(maxsize=1)
def s3_client() -> Any:
    """Return this process's client; it is thread-safe, and slow to make."""
    return boto3.client("s3", config=Config(retries={"mode": "standard"}, connect_timeout=10, read_timeout=60))


def listing(source: str) -> list[Item]:
    """Return every file of a source that is neither hidden nor a sidecar, sorted by uri, at any depth.

    Raises:
        FileNotFoundError: no such folder or bucket.
        ValueError: nothing in it.
        ConnectionError: the store does not answer, or refuses.
    """
    items = _listing_s3(source) if source.startswith(_S3) else _listing_folder(source)
    if not items:
        raise ValueError(f"source is {source}, which holds no file (params.yaml: source); put videos there")
    return sorted(items)


def _listing_folder(source: str) -> list[Item]:
    root = Path(source).resolve()
    if not root.is_dir():
        raise FileNotFoundError(
            f"source is {source}, which is no folder (params.yaml: source); make it, or name a folder or s3://bucket/prefix"
        )
    found: dict[str, tuple[int, str, str | None]] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # os.walk enters no linked folder: one inside the source is listed where it is, one outside gets a row
        linked = [name for name in folders if Path(folder, name).is_symlink()]
        for name in [*files, *linked]:
            path = Path(folder, name)
            problem = _problem(path, root)
            if name.startswith(".") or (name in linked and problem is None):
                continue
            status = path.lstat() if problem else path.stat()
            found[path.relative_to(root).as_posix()] = (status.st_size, str(status.st_mtime_ns), problem)
    return _paired(found)


def _problem(path: Path, root: Path) -> str | None:
    target = path.resolve()
    if not target.is_relative_to(root):
        return "outside_source"
    if not target.exists():
        return "not_found"
    return None if target.is_file() or target.is_dir() else "not_a_file"


def _listing_s3(source: str) -> list[Item]:
    bucket, prefix = _bucket_and_key(source)
    found: dict[str, tuple[int, str, str | None]] = {}
    try:
        for page in s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                below = PurePosixPath(entry["Key"][len(prefix) :])
                if not entry["Key"].endswith("/") and not any(part.startswith(".") for part in below.parts):
                    found[f"{_S3}{bucket}/{entry['Key']}"] = (entry["Size"], entry["ETag"], None)
    except (ClientError, BotoCoreError) as error:
        raise _s3_error(source, error) from error
    return _paired(found)


def _paired(found: dict[str, tuple[int, str, str | None]]) -> list[Item]:
    """Take the sidecars out, and note them at the files that they stand beside."""
    texts = {_stem(uri): uri for uri in found if uri.lower().endswith(SIDECAR)}
    return [
        Item(uri, size, version, texts.get(_stem(uri)), problem)
        for uri, (size, version, problem) in found.items()
        if not uri.lower().endswith(SIDECAR)
    ]


def _stem(uri: str) -> str:
    return uri.removesuffix(PurePosixPath(uri).suffix)


def local_file(source: str, uri: str, sha256: str | None, cache: Path) -> Path:
    """Return the file behind `uri` on this machine.

    A file of a folder is itself. An object of a bucket is fetched into `cache` under the sha256 of its bytes,
    unless it is there; `sha256` is what it must have.

    Raises:
        FileNotFoundError: no such file or object (any more).
        ValueError: the file lies outside the source, or the object's bytes have another sha256.
        ConnectionError: the store does not answer, or refuses.
    """
    if not uri.startswith(_S3):
        root = Path(source).resolve()
        path = (root / uri).resolve(strict=True)
        if not path.is_relative_to(root):
            raise ValueError(f"{uri} lies outside the source {source}")
        return path
    if sha256 and (kept := cache.resolve() / sha256).exists():
        return kept
    path = _download(uri, cache.resolve())
    if sha256 and path.name != sha256:
        raise ValueError(f"{uri} has sha256 {path.name}, was {sha256}: it has changed since the stage videos ran")
    return path


def _download(uri: str, cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    bucket, key = _bucket_and_key(uri)
    handle, name = tempfile.mkstemp(dir=cache, prefix=".download-")
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            s3_client().download_fileobj(bucket, key, file)
            file.flush()
            os.fsync(file.fileno())
        return aside.replace(cache / resume.sha256_file(aside))
    except (ClientError, BotoCoreError) as error:
        raise _s3_error(uri, error) from error
    finally:
        aside.unlink(missing_ok=True)


def caption_beside(source: str, item: Item, max_characters: int) -> tuple[str | None, str | None]:
    """Return the item's sidecar text, normalised, and the reason code if it cannot be used.

    No or empty text is (None, None). Too long a text is not cut: half a caption would be trained on.
    """
    if item.sidecar is None:
        return None, None
    limit = _BYTES_PER_CHARACTER * max_characters
    content = _head(source, item.sidecar, limit + 1)
    if len(content) > limit:
        return None, "caption_too_long"
    try:
        text = normalise(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return None, "caption_not_text"
    if len(text) > max_characters:
        return None, "caption_too_long"
    return text or None, None


def normalise(text: str) -> str:
    """Return the text in Unicode form NFC, without control characters, with single spaces."""
    composed = unicodedata.normalize("NFC", text)
    return " ".join("".join(" " if unicodedata.category(one) == "Cc" else one for one in composed).split())


def _head(source: str, uri: str, size_bytes: int) -> bytes:
    if uri.startswith(_S3):
        bucket, key = _bucket_and_key(uri)
        try:
            return s3_client().get_object(Bucket=bucket, Key=key)["Body"].read(size_bytes)
        except (ClientError, BotoCoreError) as error:
            raise _s3_error(uri, error) from error
    with local_file(source, uri, None, CACHE).open("rb") as file:
        return file.read(size_bytes)


def listing_hash(items: list[Item]) -> str:
    """Return one hash of what a source holds, so that work on other files is not gone on with."""
    return hashlib.sha256(repr([tuple(item) for item in items]).encode()).hexdigest()


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(_S3).partition("/")
    if not bucket:
        raise ValueError(f"source is {uri}: write it as s3://bucket/prefix (params.yaml: source)")
    return bucket, key


def _s3_error(uri: str, error: ClientError | BotoCoreError) -> OSError:
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    if code in ("404", "NoSuchKey", "NoSuchBucket"):
        return FileNotFoundError(f"{uri} does not exist ({code}); check params.yaml: source, and AWS_ENDPOINT_URL")
    return ConnectionError(
        f"{uri} cannot be read ({error}); check AWS_ENDPOINT_URL and the AWS credentials, then run again"
    )
