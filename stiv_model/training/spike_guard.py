"""Bad numbers never reach the weights: every step is judged on all ranks alike before it is taken.

A step whose loss or gradient norm is not finite, or far above those of the last ones, is skipped and recorded with
its clips; so is one after which the loss has slowly risen far above what it was, and one without any gradient. After
three in a row the run goes back to its last checkpoint and passes over the steps that led there; after three such
returns it stops and names the clips.
"""

import math
from collections import deque
from collections.abc import Sequence

from pydantic import JsonValue

from stiv_model.settings import TrainingSettings

IN_A_ROW = 3
"""Bad steps in a row that make a run go back."""
RETURNS = 3
"""Times that a run may go back."""
_WINDOW, _LEAST = 200, 50
"""Good steps that a new one is compared with, and how many there must be."""
_SMALLEST_SIGMA = 0.1
"""Of the logarithm: what varies less still may rise by half."""


class Guard:
    """Judges steps, and remembers in `memory()` what a run that goes on must know.

    Args:
        training: `outlier_sigmas` says how far is too far.
        memory: what an earlier attempt remembered; empty for a new run.
    """

    def __init__(self, training: TrainingSettings, memory: dict[str, JsonValue]):
        self.sigmas = training.outlier_sigmas
        self._remember(memory)

    def _remember(self, memory: dict[str, JsonValue]) -> None:
        losses, norms, passed = (_numbers(memory, name) for name in ("losses", "norms", "passed_over"))
        self.losses, self.norms = deque(losses, _WINDOW), deque(norms, _WINDOW)
        best = _numbers(memory, "best")
        self.best = (best[0], best[1]) if best else None
        """Mean and sigma of the logarithms of the lowest losses, over a window, that the run has had."""
        self.passed_over = {int(step) for step in passed}
        self.bad_in_a_row, self.returns = (int(sum(_numbers(memory, name))) for name in ("bad_in_a_row", "returns"))

    def memory(self) -> dict[str, JsonValue]:
        """Return what must be saved with a checkpoint."""
        return {
            "losses": list(self.losses),
            "norms": list(self.norms),
            "best": [*(self.best or ())],
            "passed_over": [*sorted(self.passed_over)],
            "bad_in_a_row": [self.bad_in_a_row],
            "returns": [self.returns],
        }

    def judge(self, loss: float, gradient_norm: float) -> str | None:
        """Say why a step must not be taken; None where it may, and is remembered as a good one."""
        found = {"loss": (loss, self.losses), "gradient norm": (gradient_norm, self.norms)}
        why = next((said for name, one in found.items() if (said := self._why_bad(name, *one))), None)
        if why is None and gradient_norm == 0.0:
            why = "gradient norm is 0: the loss depends on no weight"
        why = why or self._why_risen(loss)
        if why is None:
            self.losses.append(math.log(max(loss, 1e-30)))
            self.norms.append(math.log(max(gradient_norm, 1e-30)))
            self._note_best()
        self.bad_in_a_row = self.bad_in_a_row + 1 if why else 0
        return why

    def _why_bad(self, name: str, value: float, past: Sequence[float]) -> str | None:
        if not math.isfinite(value):
            return f"{name} is {value}"
        if len(past) < _LEAST:
            return None
        mean, sigma = _mean_and_sigma(past)
        distance = (math.log(max(value, 1e-30)) - mean) / sigma
        if distance <= self.sigmas:
            return None
        return f"{name} {value:.4g} is {distance:.1f} sigmas above {math.exp(mean):.4g} (logarithms)"

    def _why_risen(self, loss: float) -> str | None:
        """Say that the losses of a window have risen so far as no single one may, each only a little above the last."""
        if self.best is None or len(self.losses) < _WINDOW:
            return None
        mean, sigma = self.best
        risen = (_mean_and_sigma([*self.losses, math.log(max(loss, 1e-30))][-_LEAST:])[0] - mean) / sigma
        if risen <= self.sigmas:
            return None
        return (
            f"loss has risen by {risen:.1f} sigmas from its lowest, {math.exp(mean):.4g} (logarithms, over many steps)"
        )

    def _note_best(self) -> None:
        if len(self.losses) < _WINDOW:
            return
        now = _mean_and_sigma(self.losses)
        if self.best is None or now[0] < self.best[0]:
            self.best = now

    def go_back(self, checkpoint: int, step: int, memory: dict[str, JsonValue]) -> None:
        """Pass over the steps from the one after `checkpoint` up to `step` when they come by again.

        Args:
            memory: as it was saved with the checkpoint.

        Raises:
            FloatingPointError: the run has gone back too often.
        """
        if self.returns == RETURNS:
            raise FloatingPointError(
                f"{IN_A_ROW} bad steps in a row up to step {step}, after {RETURNS} returns to a checkpoint: see "
                "incidents.jsonl for the clips, and lower the learning rate or look at the data"
            )
        returns, passed_over = self.returns + 1, {*self.passed_over, *range(checkpoint + 1, step + 1)}
        self._remember(memory)
        self.returns, self.passed_over = returns, passed_over


def _mean_and_sigma(logarithms: Sequence[float]) -> tuple[float, float]:
    mean = sum(logarithms) / len(logarithms)
    return mean, max(_SMALLEST_SIGMA, math.sqrt(sum((one - mean) ** 2 for one in logarithms) / len(logarithms)))


def _numbers(memory: dict[str, JsonValue], name: str) -> list[float]:
    values = memory.get(name, [])
    assert isinstance(values, list), f"{name} is {values}"
    return [float(value) for value in values if isinstance(value, int | float)]
