"""How far a run of the pipeline is, and when it will be done: by its trainings, and by an earlier run of all of it."""

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flows.params import load_params, read_params
from flows.running import stage_names
from flows.stages import TIMES
from stiv_model.training.run_files import LOSSES

if TYPE_CHECKING:
    from prefect.client.schemas.objects import TaskRun


class Place(NamedTuple):
    """Where a run of the pipeline is."""

    done: tuple[str, ...]
    """Stages that are up to date."""
    current: str
    """The stage at work."""
    seconds: float
    """For which it has been."""


class Training(NamedTuple):
    """Where a training is."""

    step: int
    steps: int
    seconds: float
    """That these steps took, over all attempts."""

    @property
    def left(self) -> float:
        """Seconds, if the other steps take as long."""
        return self.seconds * (self.steps - self.step) / self.step


def settings_hash() -> str:
    """Return the sha256 of the values in params.yaml."""
    return hashlib.sha256(json.dumps(read_params(), sort_keys=True).encode()).hexdigest()


def record() -> dict[str, Any]:
    """Return what the run of this workspace took, with which settings, on how many CPU cores.

    Seconds of each stage, and steps and seconds of each training.

    Raises:
        FileNotFoundError: a training has left no table of its losses.
    """
    trained = {}
    for recipe in stage_names.recipes():
        found = _last_row(Path("reports/losses", f"{recipe}.tsv"))
        trained[recipe] = {"steps": int(found["step"]), "seconds": round(float(found["seconds"]), 1)}
    seconds = {name: _seconds(name, took, trained) for name, took in noted(TIMES).items()}
    return {
        "settings": settings_hash(),
        "cores": len(os.sched_getaffinity(0)),
        "stages": seconds,
        "trained": trained,
    }


def _seconds(stage: str, took: float, trained: Mapping[str, Mapping[str, float]]) -> float:
    """Return what a stage took: of a training that went on, the pipeline notes the last attempt alone."""
    return max(took, trained[stage]["seconds"]) if stage in trained else took


def noted(times: Path) -> dict[str, float]:
    """Return the seconds of each stage that ran, as the pipeline noted them; none where it noted nothing."""
    if not times.exists():
        return {}
    return {name: stage["seconds"] for name, stage in json.loads(times.read_text())["stages"].items()}


def place_of(runs: "list[TaskRun]", stages: list[str]) -> Place | None:
    """Return where the pipeline is, by its tasks, one per stage that has begun; None when no stage is at work."""
    found = {run.name: run for run in runs if run.name in stages}
    done = tuple(name for name in stages if name in found and found[name].state_type == "COMPLETED")
    for run in found.values():
        if run.state_type == "RUNNING" and run.start_time:
            return Place(done, run.name, (datetime.now(UTC) - run.start_time).total_seconds())
    return None


def training_of(stage: str) -> Training | None:
    """Return where the training of a stage is; None for one that is no training, or has not made a step yet."""
    if stage not in stage_names.recipes():
        return None
    work = Path(f"{stage_names.outputs(stage)[0]}.partial")
    try:
        row = _last_row(work / LOSSES)
    except (FileNotFoundError, IndexError):
        return None
    return Training(int(row["step"]), load_params().train[stage].steps, float(row["seconds"]))


def _last_row(table: Path) -> dict[str, str]:
    """Return the last whole row of a table, which may be growing."""
    head, *rows = [line for line in table.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return dict(zip(head.split(), rows[-1].rstrip("\n").split("\t"), strict=True))


def told(place: Place, stages: list[str], then: dict[str, float] | None) -> str:
    """Say where a run is, and how long it will take.

    Args:
        stages: all of the pipeline, in order.
        then: seconds that each stage took in a run with the same settings; without it, nothing is said of the whole.
    """
    number, training = stages.index(place.current) + 1, training_of(place.current)
    line = f"== stage {number} of {len(stages)}, {place.current}"
    if training:
        line += f": step {training.step} of {training.steps}, {_length(training.left)} left of this training"
    if then is None or (left := whole_left(place, stages, then, noted(TIMES), training)) is None:
        return line
    return f"{line}; about {_length(left)} left of all, by the times of the model that comes with the package"


def whole_left(
    place: Place, stages: list[str], then: dict[str, float], here: dict[str, float], training: Training | None
) -> float | None:
    """Return the seconds to the end, if what is left takes as long beside what is done as it did then.

    Args:
        then: seconds that each stage took in a run with the same settings.
        here: the same of this run, as far as it is.

    Returns:
        None where another list of stages ran then, or so little is done that it says nothing.
    """
    if set(then) != set(stages):
        return None
    both = [name for name in place.done if name in here]
    took, took_then = sum(here[name] for name in both), sum(then[name] for name in both)
    if training and training.step > 1:
        share = training.step / training.steps
        took, took_then = took + training.seconds, took_then + share * then[place.current]
    if took_then < _ENOUGH * sum(then.values()):
        return None
    pace = took / took_then
    ahead = stages[stages.index(place.current) + 1 :]
    current = training.left if training else max(0.0, pace * then[place.current] - place.seconds)
    return current + pace * sum(then[name] for name in ahead)


_ENOUGH = 0.01
"""Of a whole run: before so much of it is done, its pace is not told."""


def _length(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
