"""Ends a stage whose model is gone, so that it fails its items by the dozen and not by the million."""

from collections import deque
from typing import NamedTuple

IN_ROW = 20
"""So many failures, one after the other, open it ..."""
WINDOW, MOST_FAILED = 200, 0.5
"""... and so does a larger share than this among the last so many items."""


class Tripped(NamedTuple):
    """Why a breaker is open."""

    said: str
    may_pass: bool
    """Whether the same may go well later; not where every failure was one that comes again."""


class Breaker:
    """Counts items that came to a good end and those that did not, when all attempts at them were spent."""

    def __init__(self) -> None:
        self.tripped: Tripped | None = None
        self._last: deque[bool] = deque(maxlen=WINDOW)
        self._row: list[bool] = []

    def trip(self, said: str) -> None:
        """Open it for another reason, which may pass."""
        self.tripped = self.tripped or Tripped(said, True)

    def succeeded(self) -> None:
        """Note an item that has its answer."""
        self._last.append(True)
        self._row.clear()

    def failed(self, may_pass: bool) -> None:
        """Note an item that has none.

        Args:
            may_pass: whether it may go well another time.
        """
        self._last.append(False)
        self._row.append(may_pass)
        failed = self._last.count(False)
        if self.tripped is None and len(self._row) >= IN_ROW:
            self.tripped = Tripped(f"{IN_ROW} failures in a row", any(self._row))
        elif self.tripped is None and len(self._last) == WINDOW and failed > MOST_FAILED * WINDOW:
            self.tripped = Tripped(f"{failed} failures among the last {WINDOW}", True)
