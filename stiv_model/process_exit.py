"""How our processes end: with the one that started them (Linux), or on request, with their work saved.

Imports nothing that takes time, for those who only ask.
"""

import ctypes
import json
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(last: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel for this signal when the thread that started this process ends; also for `preexec_fn`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, last)


STOPPED = 75
"""The exit code of a rank, or of our command, that was asked to stop: EX_TEMPFAIL of sysexits.h, "try again later"."""
_NOTE = "stopped.json"


def mark_stopped(work: Path, step: int | None) -> None:
    """Note in the folder of a run after which step it stopped on request; None takes the note away.

    Launchers do not hand on the exit code of a rank: torchrun makes 1 of all.
    """
    if step is None:
        (work / _NOTE).unlink(missing_ok=True)
    else:
        (work / _NOTE).write_text(json.dumps({"step": step}))


def stopped_at(work: Path) -> int | None:
    """Return after which step a run stopped on request; None when it did not."""
    note = work / _NOTE
    return json.loads(note.read_text())["step"] if note.exists() else None
