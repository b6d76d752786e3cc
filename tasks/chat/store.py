"""Answers of models, kept as they come, so that a stage that was killed asks for none of them again.

One SQLite database for all stages, settings and models: an answer is known by what was asked, not by when. It may be
deleted at any time, at the price of asking again.
"""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from tasks.chat.answers import Answer

STORE = Path(".cache/answers.sqlite")
_BUSY_SECONDS = 60
_AGAIN_SECONDS = 0.02
_AT_ONCE = 500  # keys in one query


def key_of(asked: dict[str, Any]) -> str:
    """Return what identifies all that decides an answer beside the item: model, prompt, sampling, as JSON has it."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class Answers:
    """The stored answers; several threads may use one, and several processes of a machine one file.

    Args:
        path: file of the database, which is made when it is not there.

    Raises:
        ValueError: there is a file that is none, or is damaged.
        TimeoutError: another process has held it for a minute.
    """

    def __init__(self, path: Path = STORE) -> None:
        self._path, self._lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None)
        try:
            # what is committed outlives the process; a power failure may cost the last answers, never the file
            self._execute("PRAGMA journal_mode = WAL")
            self._execute("PRAGMA synchronous = NORMAL")
            self._execute(
                "CREATE TABLE IF NOT EXISTS answers (asked TEXT, item TEXT, answer TEXT, PRIMARY KEY (asked, item))"
                " WITHOUT ROWID"
            )
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ValueError(
                f"{path} is damaged ({error}): move it away, and its answers are asked for again"
            ) from None
        except TimeoutError:
            self._connection.close()
            raise

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Execute one statement, and wait where SQLite does not.

        Its own time-out does not hold everywhere: the change to WAL, the clean-up by whoever closes a file last and the
        recovery after a kill answer "busy" at once (https://sqlite.org/wal.html, section 2.3).
        """
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                return self._connection.execute(statement, values)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
                if time.monotonic() > until:
                    raise TimeoutError(
                        f"{self._path} has been held by another process for {_BUSY_SECONDS} s: wait for it, or end it"
                    ) from None
                time.sleep(_AGAIN_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._connection.close()

    def put(self, asked: str, item: str, answer: Answer) -> None:
        """Store an answer, whole or not at all.

        Args:
            asked: `key_of` what was asked.
            item: what it was asked about.

        Raises:
            OSError: it could not be written.
        """
        values = (asked, item, json.dumps(answer))
        try:
            with self._lock:
                self._execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", values)
        except sqlite3.Error as error:
            raise OSError(f"{self._path} cannot be written: {error}") from None

    def forget(self, prefix: str) -> int:
        """Delete the answers about items whose names begin so, and overwrite their bytes; return how many.

        Raises:
            TimeoutError: another process reads them, so that their bytes are still in the journal.
        """
        with self._lock:
            self._execute("PRAGMA secure_delete = ON")
            gone = self._execute("DELETE FROM answers WHERE item GLOB ?", (f"{prefix}*",)).rowcount
            busy, *_ = self._execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise TimeoutError(f"{self._path} is read by another process: {gone} answers are deleted, not overwritten")
        return gone

    def find(self, asked: str, items: Sequence[str]) -> dict[str, Answer]:
        """Return the answers about those of the items that have one."""
        found: dict[str, Answer] = {}
        for first in range(0, len(items), _AT_ONCE):
            some = items[first : first + _AT_ONCE]
            query = f"SELECT item, answer FROM answers WHERE asked = ? AND item IN ({', '.join('?' * len(some))})"
            with self._lock:
                rows: Iterable[tuple[str, str]] = self._execute(query, (asked, *some)).fetchall()
            found |= {item: Answer(*json.loads(answer)) for item, answer in rows}
        return found


def forget(path: Path, prefix: str) -> int:
    """Delete the answers about items whose names begin so, from the file and its journal; return how many there were.

    Args:
        path: of the database; nothing is done where there is none.
        prefix: of letters, digits and hyphens.

    Raises:
        ValueError: as `Answers`.
    """
    if not path.exists():
        return 0
    with Answers(path) as answers:
        return answers.forget(prefix)
