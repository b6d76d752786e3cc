"""Objects of S3 stores, by boto3 with the standard AWS variables and files; AWS_ENDPOINT_URL names another store.

Requests are repeated with exponential backoff and jitter (botocore's standard mode); listings are paginated; large
objects come in ranges; what the store knows as checksum is compared on the way (botocore's default).
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import groupby, islice, pairwise, takewhile
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

T = TypeVar("T")

PREFIX = "s3://"
_ATTEMPTS = 8
_FIRST_WAIT = 0.1
"""Seconds before an object is fetched once more; twice as long before each further time."""
_PATIENCE_SECONDS = 120.0
_SLOWEST_BYTES_PER_SECOND = 20_000
"""One object has its patience and a second for so many of its bytes: botocore waits a minute for every single byte."""
_HEADS_AT_ONCE = 16
_PAGE = 1000
"""Objects in one page of a listing, the most that S3 gives."""


_ARCHIVED, _DENIED = "InvalidObjectState", ("403", "AccessDenied", "AllAccessDisabled")


class Unavailable(ConnectionError):  # noqa: N818 (a verdict on the object, not a fault of ours)
    """One object cannot be had, where others can; carries the reason code of its row."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


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


def listing(source: str) -> Iterator[Object]:
    """Give every object below a prefix, which is a folder as those of a disk are, but for folders' own entries.

    Raises:
        FileNotFoundError: no such bucket.
        ConnectionError: the store does not answer, or refuses.
    """
    bucket, prefix = split(source)
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""  # S3 takes a prefix by its letters: raw is of raw2/ too
    try:
        pages = client().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": _PAGE}):
            yield from (found for found in _objects(bucket, page) if not found.uri.endswith("/"))
    except (ClientError, BotoCoreError) as error:
        raise _explained(source, error) from error


def _objects(bucket: str, page: dict[str, Any]) -> Iterator[Object]:
    for entry in page.get("Contents", []):
        yield Object(f"{PREFIX}{bucket}/{entry['Key']}", entry["Size"], entry["ETag"])


def look_up(uris: Iterable[str]) -> Iterator[Object | str]:
    """Give what the store says of each object, or the reason code where it gives none, in order.

    Objects that lie close together are taken from a listing, a request for up to a thousand of them, and others are
    asked for one by one: no more requests than uris, but for one in a thousand.

    Args:
        uris: sorted, so that a listing passes by them.

    Raises:
        ConnectionError: the store does not answer, or refuses.
    """
    with ThreadPoolExecutor(_HEADS_AT_ONCE) as threads:
        for bucket, of_bucket in groupby(uris, key=lambda uri: split(uri)[0]):
            yield from _look_up_in(bucket, of_bucket, threads)


def _look_up_in(bucket: str, uris: Iterator[str], threads: ThreadPoolExecutor) -> Iterator[Object | str]:
    waiting: list[str] = []
    can_list = True
    while waiting := waiting + list(islice(uris, _PAGE - len(waiting))):
        listed: list[Object | str] = []
        if can_list and len(waiting) > _HEADS_AT_ONCE:
            found = _listed(bucket, waiting)
            can_list, listed = found is not None, found or []
        yield from listed
        waiting = waiting[len(listed) :]
        if len(listed) < _HEADS_AT_ONCE:  # as many are asked for at once
            yield from threads.map(_look_up, waiting)
            waiting = []


def _listed(bucket: str, uris: list[str]) -> list[Object | str] | None:
    """Return what one page of a listing says of the first of some objects, as many as it reaches.

    None if the store lists none, or in no order: those who may read objects need not be allowed to list them. What is
    wrong with a store that does not answer is then said by the request for an object.
    """
    first, last = (split(uri)[1] for uri in (uris[0], uris[-1]))
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    folder = first[: first.rfind("/", 0, alike) + 1]
    # the rest of the name without its last character sorts before it, with hardly anything between
    begin = {"StartAfter": first[:-1]} if len(first) > len(folder) + 1 else {}
    try:
        page = client().list_objects_v2(Bucket=bucket, Prefix=folder, MaxKeys=_PAGE, **begin)
    except (ClientError, BotoCoreError):
        return None
    found = {one.uri: one for one in _objects(bucket, page)}
    names = list(found)
    if any(one >= other for one, other in pairwise(names)):
        return None
    reached = takewhile(lambda uri: uri <= names[-1], uris) if page["IsTruncated"] else uris
    return [found.get(uri, "not_found") for uri in reached]


def _look_up(uri: str) -> Object | str:
    bucket, key = split(uri)
    try:
        found = client().head_object(Bucket=bucket, Key=key)
    except (ClientError, BotoCoreError) as error:
        explained = _explained(uri, error)
        if isinstance(explained, FileNotFoundError):
            return "not_found"
        if isinstance(explained, Unavailable):
            return explained.reason
        raise explained from error
    return Object(uri, found["ContentLength"], found["ETag"])


def size_of(uri: str) -> int:
    """Return how many bytes an object has.

    Raises:
        FileNotFoundError, ConnectionError: as above.
        Unavailable: this object is archived, forbidden or broken.
    """
    bucket, key = split(uri)
    try:
        return int(client().head_object(Bucket=bucket, Key=key)["ContentLength"])
    except (ClientError, BotoCoreError) as error:
        raise _explained(uri, error) from error


def download(uri: str, path: Path, size_bytes: int | None = None) -> None:
    """Fetch an object into a file.

    Args:
        size_bytes: that it must have, as `size_of` says; None: the store is asked.

    Raises:
        FileNotFoundError, ConnectionError: as above.
        Unavailable: this object is archived, forbidden or broken, or came too slowly.
    """
    bucket, key = split(uri)

    def fetch() -> None:
        with path.open("wb") as file:
            client().download_fileobj(bucket, key, file)

    size_bytes = size_of(uri) if size_bytes is None else size_bytes
    try:
        _in_time(uri, size_bytes, fetch)
    except (ClientError, BotoCoreError) as error:
        raise _explained(uri, error) from error
    if (got := path.stat().st_size) != size_bytes:
        raise Unavailable(f"{uri} has {size_bytes} bytes, of which {got} came: run again", "object_broken")


def head(uri: str, size_bytes: int | None = None) -> bytes:
    """Return the first bytes of an object, or all of them; fetched again where the connection ended before.

    Raises:
        FileNotFoundError, ConnectionError: as above.
        Unavailable: this object is archived, forbidden or broken, or came too slowly, or never whole.
    """
    bucket, key = split(uri)

    def fetch() -> tuple[bytes, int]:
        answer = client().get_object(Bucket=bucket, Key=key)
        length = answer["ContentLength"]
        wanted = length if size_bytes is None else min(size_bytes, length)
        return answer["Body"].read(wanted), wanted

    for attempt in range(_ATTEMPTS):
        time.sleep(attempt and _FIRST_WAIT * 2 ** (attempt - 1))
        try:
            content, wanted = _in_time(uri, size_bytes or 0, fetch)
        except (IncompleteReadError, ResponseStreamingError, ReadTimeoutError):
            continue  # a request is repeated by botocore, its answer is not
        except (ClientError, BotoCoreError) as error:
            raise _explained(uri, error) from error
        if len(content) == wanted:
            return content
    problem = f"{uri}: the connection ended before the object was whole, {_ATTEMPTS} times: run again"
    raise Unavailable(problem, "object_broken")


def _in_time(uri: str, size_bytes: int, fetch: Callable[[], T]) -> T:
    """Return what a function fetches; a thread that is too slow is left to itself, for nothing can end it.

    Raises:
        ConnectionError: it is slower than any store that works.
    """
    limit = _PATIENCE_SECONDS + size_bytes / _SLOWEST_BYTES_PER_SECOND
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(fetch())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=run, daemon=True, name=f"fetch {uri}").start()
    try:
        return outcome.result(limit)
    except TimeoutError:
        problem = f"{uri} did not come within {limit:.0f} s: its store is too slow; run again"
        raise Unavailable(problem, "object_broken") from None


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
    if code == _ARCHIVED:
        return Unavailable(f"{uri} is archived: restore it in the store, then run again", "archived")
    if code in _DENIED:
        return Unavailable(f"{uri} may not be read with these credentials ({code})", "not_permitted")
    if code == "InternalError" or isinstance(error, FlexibleChecksumError | IncompleteReadError):
        return Unavailable(f"{uri} cannot be read whole ({error}): store it again", "object_broken")
    return ConnectionError(
        f"{uri} cannot be read ({error}); check AWS_ENDPOINT_URL and the AWS credentials, then run again"
    )
