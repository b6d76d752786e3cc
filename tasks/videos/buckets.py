"""Objects of S3 stores, by boto3 with the standard AWS variables and files; AWS_ENDPOINT_URL names another store.

Requests are repeated with exponential backoff and jitter (botocore's standard mode); listings are paginated; large
objects come in ranges; what the store knows as checksum is compared on the way (botocore's default).
"""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

PREFIX = "s3://"
_ATTEMPTS = 8
_HEADS_AT_ONCE = 16


class Object(NamedTuple):
    uri: str
    size_bytes: int
    tag: str
    """The store's entity tag: changes with the content."""


@lru_cache(maxsize=1)
def client() -> Any:
    """Return this process's client; it is thread-safe, and slow to make."""
    retries = {"mode": "standard", "max_attempts": _ATTEMPTS}
    return boto3.client("s3", config=Config(retries=retries, connect_timeout=10, read_timeout=60))


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of `s3://bucket/key`.

    Raises:
        ValueError: it names no bucket.
    """
    bucket, _, key = uri.removeprefix(PREFIX).partition("/")
    if not bucket:
        raise ValueError(f"source is {uri}: write it as s3://bucket/prefix (params.yaml: source)")
    return bucket, key


def listing(source: str) -> list[Object]:
    """Return every object below a prefix, but for folders' own entries.

    Raises:
        FileNotFoundError: no such bucket.
        ConnectionError: the store does not answer, or refuses.
    """
    bucket, prefix = split(source)
    found: list[Object] = []
    try:
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            entries = (entry for entry in page.get("Contents", []) if not entry["Key"].endswith("/"))
            found += [Object(f"{PREFIX}{bucket}/{entry['Key']}", entry["Size"], entry["ETag"]) for entry in entries]
    except (ClientError, BotoCoreError) as error:
        raise _explained(source, error) from error
    return found


def look_up(uris: list[str]) -> list[Object | None]:
    """Return what the store says of each object, None where there is none.

    Raises:
        ConnectionError: the store does not answer, or refuses.
    """
    with ThreadPoolExecutor(_HEADS_AT_ONCE) as threads:
        return list(threads.map(_look_up, uris))


def _look_up(uri: str) -> Object | None:
    bucket, key = split(uri)
    try:
        found = client().head_object(Bucket=bucket, Key=key)
    except (ClientError, BotoCoreError) as error:
        explained = _explained(uri, error)
        if isinstance(explained, FileNotFoundError):
            return None
        raise explained from error
    return Object(uri, found["ContentLength"], found["ETag"])


def download(uri: str, path: Path) -> None:
    """Fetch an object into a file.

    Raises:
        FileNotFoundError, ConnectionError: as above.
    """
    bucket, key = split(uri)
    try:
        with path.open("wb") as file:
            client().download_fileobj(bucket, key, file)
    except (ClientError, BotoCoreError) as error:
        raise _explained(uri, error) from error


def head(uri: str, size_bytes: int | None = None) -> bytes:
    """Return the first bytes of an object, or all of them.

    Raises:
        FileNotFoundError, ConnectionError: as above.
    """
    bucket, key = split(uri)
    try:
        return client().get_object(Bucket=bucket, Key=key)["Body"].read(size_bytes)
    except (ClientError, BotoCoreError) as error:
        raise _explained(uri, error) from error


def delete(uri: str) -> None:
    """Delete an object; a store that keeps versions keeps the old ones.

    Raises:
        ConnectionError: the store does not answer, or refuses.
    """
    bucket, key = split(uri)
    try:
        client().delete_object(Bucket=bucket, Key=key)
    except (ClientError, BotoCoreError) as error:
        raise _explained(uri, error) from error


def _explained(uri: str, error: ClientError | BotoCoreError) -> OSError:
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    if code in ("404", "NoSuchKey", "NoSuchBucket"):
        return FileNotFoundError(f"{uri} does not exist ({code}); check params.yaml: source, and AWS_ENDPOINT_URL")
    return ConnectionError(
        f"{uri} cannot be read ({error}); check AWS_ENDPOINT_URL and the AWS credentials, then run again"
    )
