"""Locks that a process holds as long as it lives: whoever comes second is told who is there, and touches nothing."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

LOCKS = Path(".cache/locks")


@contextlib.contextmanager
def hold(lock: Path, name: str, refusal: str) -> Iterator[None]:
    """Hold a lock as long as the block lasts, or as the process lives.

    Args:
        lock: its file, which stays.
        name: what a second one is told beside the number of this process.
        refusal: what a second one is told, {holder} filled in.

    Raises:
        ValueError: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(refusal.format(holder=file.read().strip() or "another process")) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} ({name})\n")
        file.flush()
        yield


def output(out: Path, verb: str) -> contextlib.AbstractContextManager[None]:
    """Return the lock on what a stage makes, however the stage was started."""
    lock = LOCKS / f"{out.name}-{sha256(str(out.resolve()).encode()).hexdigest()[:12]}"
    place = str(out).replace("{", "{{").replace("}", "}}")
    return hold(lock, f"stiv {verb}", f"{{holder}} is making {place}: wait for it, or end it; nothing was touched")
