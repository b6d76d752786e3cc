"""What a metric is: a measure of each video, or of all of them together. `registry.py` has the list of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from tasks.evaluation.settings import EvaluationSettings

Result = TypeVar("Result")
Better = Literal["higher", "lower"]


def _always(entry: "Evaluated") -> bool:
    return True


def _lacks_nothing(facts: Mapping[str, Any]) -> str | None:
    return None


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A video that is measured, and what is known of it. Pictures are uint8 RGB, of the video's size."""

    id: str
    video: np.ndarray
    """(T, H, W, 3)."""
    group: str = ""
    """Videos of one group make one figure, such as `t2v held_out`; empty where a suite has no groups."""
    prompt: str | None = None
    image: np.ndarray | None = None
    """The first frame that the model was given, (H, W, 3)."""
    given_frames: tuple[int, ...] = ()
    """Which frames it was given clean."""
    truth: np.ndarray | None = None
    """The real video that it should be, (T, H, W, 3)."""
    mode: str | None = None
    """Of the suite shapes: t2v, ti2v or tup."""
    held_out: bool | None = None
    colour: str | None = None
    shape: str | None = None
    direction: str | None = None
    fps: float | None = None
    """Frames per second; None where nobody knows."""
    _found: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def seen_by(self, function: Callable[[np.ndarray], Result]) -> Result:
        """Return `function(video)`, computed once however many metrics ask."""
        if function not in self._found:
            self._found[function] = function(self.video)
        return self._found[function]


class Metric(NamedTuple):
    """A measure of one video; the card has its share or mean of each group."""

    name: str
    """Of the column in values.parquet and of the card's dimension."""
    unit: str
    """`share` of what is true or false; `dB`, `px` ...; `word` of a text."""
    better: Better | None
    measure: Callable[[Evaluated], float | bool | str | None]
    """None: this video has no such value, and does not count."""
    applies: Callable[[Evaluated], bool] = _always
    """Where it says no, nothing is measured of the video."""
    needs: str | None = None
    """The extra that has to be installed: where it is not, the dimension says not_installed."""
    protocol: Mapping[str, Any] = {}
    """What belongs to the figure: two of different protocols are not compared."""
    is_default: bool = True
    """Measured unless asked for otherwise; if not, only where `evaluation.metrics` or --metrics names it."""
    is_dimension: bool = True
    """Summed up in the card; if not, only in values.parquet. A `word` never is."""
    chance: float | None = None
    """The share that videos at random would have."""
    meaning: str = ""
    """A sentence for the page: what a reader learns from it."""


class NotApplicable(ValueError):  # noqa: N818 (a verdict on the videos, not a fault)
    """There is no such figure of these videos; carries why."""


class Features(NamedTuple):
    """Numbers of one video that metrics of sets share; they stand in values.parquet as a list, column `name`."""

    name: str
    measure: Callable[[Evaluated], np.ndarray]
    """Float64 (D,)."""
    applies: Callable[[Evaluated], bool] = _always
    needs: str | None = None


class Rows(NamedTuple):
    """What a metric of sets is computed from: the features of the videos of one group that have them."""

    features: np.ndarray
    """Float64 (n, D), in the order of the suite."""
    group: str
    facts: Mapping[str, Any]
    """Of all videos, as the card's `videos` has them: height, width, frames, fps, pixels."""
    settings: EvaluationSettings
    everyone: np.ndarray = np.empty((0, 0))
    """Of the videos of all groups that have them, float64 (m, D)."""


class Figure(NamedTuple):
    """What a metric of sets gives."""

    value: float
    low: float | None = None
    high: float | None = None
    """95 % interval, where there is one."""
    protocol: Mapping[str, Any] = {}
    """More of what belongs to the figure, such as the floor and the n of the reference."""


class SetMetric(NamedTuple):
    """A measure of all videos of a group together, such as FVD."""

    name: str
    unit: str | None
    better: Better | None
    features: str
    """Name of the `Features` that it is computed from."""
    compute: Callable[[Rows], Figure]
    """Raises ValueError with one line where there is no such figure (too few videos ...): the dimension is failed,
    or of `NotApplicable` not_applicable."""
    needs: str | None = None
    protocol: Mapping[str, Any] = {}
    is_default: bool = True
    by_group: bool = True
    """A figure of each group; if not, one of all videos together."""
    meaning: str = ""
    lack: Callable[[Mapping[str, Any]], str | None] = _lacks_nothing
    """Returns why there is no such figure of videos of such facts, as `Rows` has them; None where there may be one."""
