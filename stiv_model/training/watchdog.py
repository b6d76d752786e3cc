"""A rank that makes no progress ends, with the stacks of all its threads in the log, and with it the job."""

import faulthandler
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_LONGER = 10
"""The first steps, and what is known to be slow, may take this many times longer."""


class Watchdog:
    """Armed anew at every step; a rank that hangs in a collective cannot be asked, so a timer of C ends it.

    Args:
        least_seconds: a rank is given at least this long, or ten times the median step.
    """

    def __init__(self, least_seconds: float):
        self.least_seconds = least_seconds
        self.steps: deque[float] = deque(maxlen=100)
        self.last = time.monotonic()
        self._arm(_LONGER * least_seconds)

    def step(self) -> None:
        """Tell that a step is done."""
        now = time.monotonic()
        self.steps.append(now - self.last)
        self.last = now
        self._arm(self._patience() if len(self.steps) > 2 else _LONGER * self._patience())

    @contextmanager
    def slower(self) -> Iterator[None]:
        """Give more time to something that is no step, such as writing a checkpoint."""
        self._arm(_LONGER * self._patience())
        yield
        self.last = time.monotonic()
        self._arm(self._patience())

    def _patience(self) -> float:
        return max(self.least_seconds, 10 * statistics.median(self.steps or [0.0]))

    def stop(self) -> None:
        """Watch no longer."""
        faulthandler.cancel_dump_traceback_later()

    def _arm(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.stderr)
