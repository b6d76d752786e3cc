"""A rank that makes no progress ends, with the stacks of all its threads in the log, and with it the job."""

import faulthandler
import statistics
import sys
import time
from collections import deque

_FIRST = 10
"""The first steps may take this many times longer: kernels are compiled, memory is found."""


class Watchdog:
    """Armed anew at every step; a rank that hangs in a collective cannot be asked, so a timer of C ends it.

    Args:
        least_seconds: a rank is given at least this long, or ten times the median step.
    """

    def __init__(self, least_seconds: float):
        self.least_seconds = least_seconds
        self.steps: deque[float] = deque(maxlen=100)
        self.last = time.monotonic()
        self._arm(_FIRST * least_seconds)

    def step(self) -> None:
        """Tell that a step is done."""
        now = time.monotonic()
        self.steps.append(now - self.last)
        self.last = now
        patience = max(self.least_seconds, 10 * statistics.median(self.steps))
        self._arm(patience if len(self.steps) > 2 else _FIRST * patience)

    def stop(self) -> None:
        """Watch no longer."""
        faulthandler.cancel_dump_traceback_later()

    def _arm(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.stderr)
