"""How our processes end: with the one that started them (Linux), or on request, with their work saved.

Imports nothing that takes time, for those who only ask.
"""

import contextlib
import ctypes
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stiv_model.errors.failures import may_pass
from stiv_model.errors.redaction import redact

_PR_SET_PDEATHSIG = 1


def die_with_parent(last: signal.Signals = signal.SIGKILL, parent: int | None = None) -> None:
    """Ask the kernel for this signal when the thread that started this process ends; also for `preexec_fn`.

    Args:
        last: the signal.
        parent: process that started this one, where that is known: if it has ended before the kernel was asked, this
            process ends too.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, last)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def follow_into_end(parent: int) -> None:
    """Ask for SIGTERM when the process that started this one ends.

    Raises:
        RuntimeError: it has ended already.
    """
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        raise RuntimeError(f"process {parent}, which started this one, has ended: nothing was touched")


def is_orphan() -> bool:
    """Say whether the process that started this one is gone, of a process that was started in its parent's group.

    Who takes an orphan over, an init process or a service manager, is of another process group. So is a shell with
    job control: there this is no question to ask.
    """
    parent = os.getppid()  # 0: of another namespace, as that of a container's first process is
    return parent > 0 and os.getpgid(parent) != os.getpgrp()


STOPPED = 75
"""The exit code of a rank, or of our command, that was asked to stop: EX_TEMPFAIL of sysexits.h, "try again later"."""
_NOTE = "stopped.json"
_FAILED = "failed-{}.json"


def mark_stopped(work: Path, step: int | None) -> None:
    """Note in the folder of a run after which step it stopped on request; None takes the note away.

    Launchers do not hand on the exit code of a rank: torchrun makes 1 of all.
    """
    if step is None:
        (work / _NOTE).unlink(missing_ok=True)
    else:
        (work / _NOTE).write_text(json.dumps({"step": step}))


@contextlib.contextmanager
def noting_failure(work: Path) -> Iterator[None]:
    """Note in the folder of a run with what error the block ended: launchers hand on no word of a rank."""
    note = work / _FAILED.format(os.environ.get("RANK", "0"))
    note.unlink(missing_ok=True)  # of an earlier attempt
    try:
        yield
    except Exception as error:
        said = redact(" ".join(str(error).split()))
        is_ours = said and isinstance(error, ValueError | OSError | ArithmeticError)
        line = said if is_ours else f"{type(error).__name__}: {said}"
        with contextlib.suppress(OSError):  # of a full disk, say: the error itself goes on
            note.write_text(json.dumps({"time": time.time(), "line": line, "may_pass": may_pass(error)}))
        raise


def forget_failures(work: Path) -> None:
    """Take away what an earlier attempt noted."""
    for note in work.glob(_FAILED.format("*")):
        note.unlink()


class Failure(NamedTuple):
    """What a process noted of the error that it ended in."""

    line: str
    may_pass: bool
    """Whether it may go well when it is tried again."""


def failure(work: Path) -> Failure | None:
    """Return the error that was noted first; peers of a failed rank only say that it is gone."""
    notes = [json.loads(note.read_text()) for note in work.glob(_FAILED.format("*"))]
    first = min(notes, key=lambda note: note["time"], default=None)
    return first and Failure(first["line"], first["may_pass"])


def stopped_at(work: Path) -> int | None:
    """Return after which step a run stopped on request; None when it did not."""
    note = work / _NOTE
    return json.loads(note.read_text())["step"] if note.exists() else None
