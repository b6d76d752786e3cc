"""Where the figures and videos of a training are shown: one protocol, a class per tracker, chosen by a setting.

`monitoring.trackers` in params.yaml names them: `tensorboard`, or `module:Class` for one of yours, of which
docs/trackers.md has an example. Only the first rank has trackers.

Shapes: T frames, H height, W width in pixels, C = 3 channels.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from stiv_model.monitoring.tensorboard_log import TensorBoardLog
from stiv_model.settings import Run

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Shows one training; made without arguments. Steps are counted from 1."""

    def start(self, run: Run, folder: Path, done: int) -> None:
        """Go on after step `done`; what was shown of later steps will come again.

        Called when the run begins, when it is taken up, and after `end` when it returns to a checkpoint.

        Args:
            run: what is trained.
            folder: a folder of the run that only people look at, for files that shall stay.
            done: steps that are in the checkpoint that the run goes on from.
        """

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Show numbers by name, such as `loss` or `speed/MFU`; NaN where a step has none."""

    def video(self, step: int, name: str, frames_THWC: np.ndarray, fps: float) -> None:
        """Show a video of uint8 RGB frames, so many of them per second; T is 1 for an image."""

    def flush(self) -> None:
        """Put what was shown where a killed process does not lose it: a checkpoint will be written."""

    def end(self) -> None:
        """Finish: the run is done, stops, or returns to a checkpoint."""


class Trackers:
    """The trackers of a run. One that fails is told of and not asked again, and the training goes on without it.

    Args:
        names: those of `monitoring.trackers`.

    Raises:
        ValueError: a module or class is not there.
    """

    def __init__(self, names: Sequence[str]):
        self._working = dict(zip(names, load(names), strict=True))

    def tell(self, what: Callable[[Tracker], None]) -> None:
        """Call a method of each tracker that has not failed yet."""
        for name, tracker in list(self._working.items()):
            try:
                what(tracker)
            except Exception as error:
                del self._working[name]
                log.warning(
                    "monitoring.trackers: %s failed (%s: %s) and shows no more of this run, which goes on without it",
                    *(name, type(error).__name__, error),
                )


def load(names: Sequence[str]) -> list[Tracker]:
    """Return a tracker for each name of `monitoring.trackers`.

    Raises:
        ValueError: a module or class is not there; the message says how to name one.
    """
    return [TensorBoardLog() if name == "tensorboard" else _of_user(name) for name in names]


def _of_user(name: str) -> Tracker:
    module, _, attribute = name.partition(":")
    try:
        found: type[Tracker] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"monitoring.trackers names {name}, but {error}: use tensorboard, or module:Class of a module that Python "
            "finds from the top of the repository (docs/trackers.md)"
        ) from error
    return found()
