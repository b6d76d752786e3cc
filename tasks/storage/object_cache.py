"""A folder of fetched files, by the sha256 of their bytes, of which those used least recently go when it is full.

Several threads and processes may share one. A file that is lent has a shared lock (flock), by which all of them see
that it is in use; the lock goes with the process that holds it, however that ends.
"""

import fcntl
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tasks.storage import atomic

_LOCK = ".lock"
"""Held while files are counted, named or deleted. Its content: how many bytes there are, with those that arrive."""
_FILE = re.compile(r"[0-9a-f]{64}")
_ARRIVING = re.compile(r"\.arriving-(\d+)-.*")
"""A file that is being fetched, with the bytes that it will have. Locked, unless who fetched it was killed."""
_LEFT = 0.9
"""Share of `max_bytes` that is left when room is made, so that the folder is not listed for every file."""


class Lease:
    """A file that stays until it is given back; a context manager, which gives its path."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        self.on_return: Callable[[], None] | None = None

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        if self.on_return:
            self.on_return()


class ObjectCache(NamedTuple):
    """Where fetched files are kept, and how many of them."""

    folder: Path
    max_bytes: float = math.inf
    """Most bytes of all files, unless those that are in use have more."""

    def take(self, sha256: str) -> Lease | None:
        """Lend the file with this hash; None if it is not there."""
        path = self.folder.resolve() / sha256
        while True:
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                return None
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if _is_at(path, descriptor):
                with suppress(PermissionError):  # another user's: the order of its use is not ours to note
                    os.utime(descriptor)
                return Lease(path, descriptor)
            os.close(descriptor)  # deleted while we waited for the lock

    def fetch(self, size_bytes: int, download: Callable[[Path], None]) -> Lease:
        """Fetch a file, and lend it under the hash that it has.

        One that finds no room, as all else is in use or it is too large by itself, goes when it is given back.

        Args:
            size_bytes: of the file.
            download: writes it to a path.

        Raises:
            Exception: as `download`.
        """
        folder = self.folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with self._locked() as count:
            has_room = self._make_room(count, size_bytes)
            descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".arriving-{size_bytes}-")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            count.add(size_bytes)
        arriving = Path(name)
        try:
            download(arriving)
            os.fsync(descriptor)
            sha256 = atomic.sha256_file(arriving)
            with self._locked():
                lease = self.take(sha256)  # another may have been faster
                if lease is None:
                    fcntl.flock(descriptor, fcntl.LOCK_SH)
                    lease = Lease(arriving.replace(folder / sha256), os.dup(descriptor))  # the lock is of both
        finally:
            if arriving.exists():
                with self._locked() as count:  # what is counted and what is there change together
                    arriving.unlink()
                    count.add(-size_bytes)
            os.close(descriptor)
        if not has_room:
            lease.on_return = self._trim
        return lease

    def _trim(self) -> None:
        with self._locked() as count:
            self._make_room(count, 0)

    def _make_room(self, count: "_Count", size_bytes: int) -> bool:
        """Delete what was used least recently until there is room for so many more bytes; say whether there is."""
        if count.known and count.total + size_bytes <= self.max_bytes:
            return True
        files, total = _listed(self.folder.resolve())
        if total + size_bytes > self.max_bytes:
            for _, size, path in sorted(files):
                if total + size_bytes <= _LEFT * self.max_bytes:
                    break
                total -= size if _deleted(path) else 0
        count.set(total)
        return total + size_bytes <= self.max_bytes

    @contextmanager
    def _locked(self) -> Iterator["_Count"]:
        descriptor = os.open(self.folder.resolve() / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _Count(descriptor)
        finally:
            os.close(descriptor)


class _Count:
    """How many bytes a folder has, as its lock file says; too many where a process was killed: a listing mends it."""

    _DIGITS = 20

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        noted = os.pread(descriptor, self._DIGITS, 0)
        self.known = len(noted) == self._DIGITS and noted.isdigit()
        self.total = int(noted) if self.known else 0

    def add(self, size_bytes: int) -> None:
        if self.known:
            self.set(max(0, self.total + size_bytes))

    def set(self, total: int) -> None:
        self.known, self.total = True, total
        os.pwrite(self._descriptor, f"{total:0{self._DIGITS}}".encode(), 0)


def _listed(folder: Path) -> tuple[list[tuple[int, int, Path]], int]:
    """Return time of last use, bytes and path of each file, and the bytes of all; delete what was left half fetched."""
    files, total = [], 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if arriving := _ARRIVING.fullmatch(entry.name):
                total += 0 if _deleted(Path(entry.path)) else int(arriving[1])
            elif _FILE.fullmatch(entry.name):
                status = entry.stat()
                files.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
                total += status.st_size
    return files, total


def _deleted(path: Path) -> bool:
    """Delete a file unless it is in use; say whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR)  # network file systems lock what may be written alone
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Say whether an open file still has this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
