"""A process that does not outlive the one that started it (Linux). Imports nothing that takes time."""

import ctypes
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent(last: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel for this signal when the thread that started this process ends; also for `preexec_fn`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, last)
