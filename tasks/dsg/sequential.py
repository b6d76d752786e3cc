"""To stop asking as soon as it is decided whether a captioner invents too much, and be right in 95 of 100.

An interval that is looked at after each caption is wrong far more often than it says. Here two wealths grow instead,
one by betting that the rate is below the threshold, one that it is above: whoever bets against the truth multiplies
wealth by 40 with a probability of 1/40 at most, whenever one looks (Ville 1939; Waudby-Smith and Ramdas 2024, JRSS B
86, 1). Captions must come in random order.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

Decision = Literal["open", "below", "above"]

_ALPHA = 0.05
_MOST_OF_BOUND = 0.5
"""Share of the bet at which one caption could take all wealth. Smaller bets grow slower and lose less by surprises."""


class Stopped(NamedTuple):
    """Where the asking ended."""

    decision: Decision
    captions: int
    """How many were asked about."""


class Sequential:
    """The state after some captions.

    Args:
        threshold: invented objects per object, 0 to 1, from which it is too much.
        most_objects: of any caption that may come. It must not depend on what was answered.
    """

    def __init__(self, threshold: float, most_objects: int) -> None:
        if not 0 < threshold < 1 or most_objects < 1:
            raise ValueError(f"Sequential: threshold is {threshold} and most_objects {most_objects}")
        self.threshold, self.most_objects = threshold, most_objects
        self.decision: Decision = "open"
        self._below = _Wealth(_MOST_OF_BOUND / (most_objects * (1 - threshold)))
        self._above = _Wealth(_MOST_OF_BOUND / (most_objects * threshold))

    def add(self, invented: int, objects: int) -> Decision:
        """Take in one caption's counts; return what is decided, which stays.

        Raises:
            ValueError: the caption has more objects than any may have, or more invented ones than objects.
        """
        if not 0 <= invented <= objects <= self.most_objects:
            raise ValueError(f"{invented} invented of {objects} objects, where {self.most_objects} is the most")
        excess = invented - self.threshold * objects
        self._below.bet(-excess)
        self._above.bet(excess)
        if self.decision == "open":
            enough = math.log(2 / _ALPHA)
            if self._below.logarithm >= enough:
                self.decision = "below"
            elif self._above.logarithm >= enough:
                self.decision = "above"
        return self.decision


class _Wealth:
    """Money of somebody who bets that a quantity has a mean above zero, in the share that its past suggests."""

    def __init__(self, most: float) -> None:
        self.logarithm = 0.0
        self._most = most
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def bet(self, gain: float) -> None:
        if self._sum > 0:
            # mean / (variance + mean^2) of the past: nearly the share under which wealth grows fastest
            self.logarithm += math.log1p(min(self._most, self._sum / self._squares) * gain)
        self._count += 1
        self._sum += gain
        self._squares += gain * gain


def rank(key: str, seed: int) -> bytes:
    """Return what puts keys in random order: another one for each seed, and the same whichever others there are."""
    return hashlib.sha256(f"{seed} {key}".encode()).digest()


def stop(threshold: float, invented: Sequence[int], objects: Sequence[int], most_objects: int | None = None) -> Stopped:
    """Go through captions in their order until it is decided, or all are used.

    Args:
        invented, objects: counts of each caption.
        most_objects: as of `Sequential`; the most of these where none is given.
    """
    state = Sequential(threshold, most_objects or max([*objects, 1]))
    for number, (h, m) in enumerate(zip(invented, objects, strict=True), start=1):
        if state.add(h, m) != "open":
            return Stopped(state.decision, number)
    return Stopped("open", len(objects))
