"""Hashes of files that are known from an earlier look, so that a check reads what has changed and not everything.

A hash is believed as long as the file is the same one (inode) with the same size and the same times of change. The time
of the last change of anything about a file, ctime, is the system's own: nobody can set it back, so bytes that were
changed with size and mtime restored are read again. What no time tells of, a disk that loses bytes, is what the age
of a record is for.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from tasks.storage import atomic

log = logging.getLogger(__name__)

_DAY_SECONDS = 86400
_TICK_SECONDS = 0.1
"""A file may change twice within one tick of the system's clock for ctime (10 ms at most) and look the same."""


class _Record(NamedTuple):
    """What a file was when it was hashed."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    digest: str
    when: float
    """Seconds since 1970."""


class KnownHashes:
    """The hashes of files, read from them where they are not known.

    Methods may be called by several threads. Processes that use one record at a time lose each other's notes, which
    costs a hash again.

    Args:
        record: file that keeps what is known; one that is missing or damaged knows nothing.
        algorithm: of hashlib: md5 or sha256.
        days: a hash that was taken so long ago is taken again; 0 takes all again.
        clock: returns the time, seconds since 1970.
    """

    def __init__(self, record: Path, algorithm: str, days: float, clock: Callable[[], float] = time.time):
        self.record, self.algorithm, self.days, self.clock = record, algorithm, days, clock
        self.bytes_read = 0
        """How much was read in order to hash."""
        self._known = _read(record, algorithm)
        self._is_new, self._lock = False, Lock()

    def digest(self, file: Path) -> str | None:
        """Return the hash of a file's bytes, in hexadecimal digits; None if there is no such file.

        Raises:
            OSError: it cannot be read.
        """
        return self._believed(file) or self._hash(file)

    def is_as(self, file: Path, digest: str) -> bool:
        """Say whether a file's bytes have this hash; they are read before it is denied.

        Raises:
            OSError: it cannot be read.
        """
        return self._believed(file) == digest or self._hash(file) == digest

    def save(self) -> None:
        """Write the record, without files that are gone."""
        if not self._is_new:
            return
        files = {name: list(known) for name, known in sorted(self._known.items()) if Path(name).exists()}
        text = json.dumps(files, indent=0)
        self.record.parent.mkdir(parents=True, exist_ok=True)
        with atomic.atomic_write(self.record) as tmp_path:
            tmp_path.write_text(f"{_seal(self.algorithm, text)}\n{text}\n")
        self._is_new = False

    def _believed(self, file: Path) -> str | None:
        """Return the hash that the record has of a file, if that is the same still."""
        known = self._known.get(_name(file))
        if known is None:
            return None
        try:
            status = file.stat()
        except FileNotFoundError:
            return None
        age = self.clock() - known.when
        if _marks(status) != known[:4] or not 0 <= age < self.days * _DAY_SECONDS:
            return None
        return known.digest

    def _hash(self, file: Path) -> str | None:
        began = self.clock()
        if not file.is_file():
            return None
        with file.open("rb") as opened:
            before = os.fstat(opened.fileno())
            digest = hashlib.file_digest(opened, self.algorithm).hexdigest()
            after = os.fstat(opened.fileno())
        settled = before.st_ctime_ns / 1e9 < began - _TICK_SECONDS
        with self._lock:
            self.bytes_read += after.st_size
            self._is_new = True
            if settled and _marks(before) == _marks(after):
                self._known[_name(file)] = _Record(*_marks(before), digest, began)
            else:
                self._known.pop(_name(file), None)
        return digest


def _marks(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _name(file: Path) -> str:
    return str(file.absolute())


def _seal(algorithm: str, text: str) -> str:
    return f"{algorithm} {hashlib.sha256(text.encode()).hexdigest()}"


def _read(record: Path, algorithm: str) -> dict[str, _Record]:
    """Return what a record knows, by file; nothing where it is not what was written."""
    try:
        seal, _, text = record.read_text().partition("\n")
        if seal != _seal(algorithm, text.removesuffix("\n")):
            raise ValueError("its bytes are not what was written")
        return {name: _Record(*values) for name, values in json.loads(text).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s cannot be used (%s): what it knew is hashed again", record, error)
        return {}
