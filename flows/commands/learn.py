"""`stiv learn`: the stages of the demo with the settings of an hour's training, in a workspace of its own beside it."""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flows import stages
from flows.commands import demo, learn_workspace, shipping, time_left
from flows.running import stage_names
from tasks.pages.shipped import TIMES

if TYPE_CHECKING:
    from prefect.client.schemas.objects import TaskRun

_SHIPPED = Path("stiv_model/embedded/shapes")
"""The model that comes with the package, as `stiv_model.pipeline.folders` has it, which loads diffusers."""
_MODEL = Path("pipelines/shapes")


def learn(folder: Path = Path("learn"), params: Path = Path("infra/params/learn.yaml"), port: int = 0) -> None:
    """Train a model worth looking at: the demo's stages with other settings, in a workspace of their own.

    About an hour of two CPU cores. What it makes lies in the folder, and nothing of the demo is touched: data,
    checkpoints, the report, and at the end FOLDER/pipelines/shapes, the model as diffusers opens it, with its first
    samples and the judge's figures. Run again, it does only what has changed. Killed, the same command goes on where it
    was, to the same weights.

    Args:
        folder: Workspace that it makes, or goes on in.
        params: File of settings.
        port: Port for the Prefect server on this machine; 0 takes a free one.

    Raises:
        ValueError: settings or folder are not right, another run is at work in it, or the pipeline did not complete.
        OSError: what was started for it ended.

    examples:
      stiv learn
      stiv learn --params my.yaml --folder mine      other settings, in a folder of their own
    """
    started = time.monotonic()
    learn_workspace.prepare(folder, params)
    os.chdir(folder)
    shipping.refuse_others(_MODEL)
    demo.run_all(started, port, _progress())
    size = shipping.pack(_MODEL)
    (report,) = stage_names.outputs("report")
    demo.say(started, f"the model, {size / 1e6:.0f} MB, with its samples and figures: {_MODEL.resolve()}")
    demo.say(started, f"done in {time.monotonic() - started:.0f} s; the report: {Path(report).resolve()}")


def _progress() -> demo.Progress:
    """Return what tells of the run now and then; of its end only where the shipped model was made with its settings."""
    names = stages.in_order()
    taken = _SHIPPED / TIMES
    then = json.loads(taken.read_text()) if taken.exists() else None
    seconds = then["stages"] if then and then["settings"] == time_left.settings_hash() else None

    def tell(runs: "list[TaskRun]") -> str | None:
        place = time_left.place_of(runs, names)
        return place and time_left.told(place, names, seconds)

    return tell
