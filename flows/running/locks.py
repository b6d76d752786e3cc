"""Locks that a process holds as long as it lives: whoever comes second is told who is there, and touches nothing."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TextIO

LOCKS = Path(".cache/locks")


@contextlib.contextmanager
def hold(lock: Path, name: str, refusal: str, stays: bool = True) -> Iterator[None]:
    """Hold a lock as long as the block lasts, or as the process lives.

    Args:
        lock: its file.
        name: what a second one is told beside the number of this process.
        refusal: what a second one is told, {holder} filled in.
        stays: whether the file is there after; that of a killed process is in any case, and stands in nobody's way.

    Raises:
        ValueError: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = _locked(lock, refusal)
    while not lock.exists() or not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
        file.close()  # whoever held it took it away before this process had it
        file = _locked(lock, refusal)
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} ({name})\n")
        file.flush()
        try:
            yield
        finally:
            if not stays:
                lock.unlink(missing_ok=True)


def _locked(lock: Path, refusal: str) -> TextIO:
    file = lock.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            raise ValueError(refusal.format(holder=file.read().strip() or "another process")) from None
    return file


@contextlib.contextmanager
def output(out: Path, verb: str) -> Iterator[None]:
    """Hold the lock on what a stage makes, however and wherever the stage was started.

    It is two: that of the folder where the stage runs, which machines that share it see, and that of `video`.

    Raises:
        ValueError: another process holds one of them.
    """
    with _making(LOCKS, out, verb, stays=True), video(out, verb):
        yield


def video(out: Path, verb: str) -> contextlib.AbstractContextManager[None]:
    """Return the lock on what a command makes that is started anywhere: seen from every folder by the same user.

    It lies with the temporary files of the machine, as the folder where the command runs may be read-only, and a folder
    of --out that a refusal leaves behind would be litter. Another machine that shares the folder does not see it.
    """
    return _making(Path(tempfile.gettempdir()) / f"stiv-{os.getuid()}/locks", out, verb, stays=False)


def _making(locks: Path, out: Path, verb: str, stays: bool) -> contextlib.AbstractContextManager[None]:
    lock = locks / f"{out.name}-{sha256(str(out.resolve()).encode()).hexdigest()[:12]}"
    place = str(out).replace("{", "{{").replace("}", "}}")
    return hold(
        lock, f"stiv {verb}", f"{{holder}} is making {place}: wait for it, or end it; nothing was touched", stays
    )
