"""The flow `stiv`: every stage of dvc.yaml in turn, each a task whose child process is a flow run of its own."""

import json
import logging
import time
from pathlib import Path

from prefect import flow, task

from flows import stages as dag
from flows.running.logs import show_ours
from flows.running.run_context import child_environment
from tasks.storage import atomic

log = logging.getLogger(__name__)

TIMES = Path(".cache/times.json")


@task(task_run_name="{stage}")
def reproduce(stage: str, force: bool) -> None:
    """Bring one stage up to date and note how long it took."""
    started = time.monotonic()
    ran = dag.reproduce(stage, force, child_environment(), lambda line: log.info("%s", line) if line else None)
    seconds = time.monotonic() - started
    log.info("stage %s %s, %.1f s", stage, "ran" if ran else "is up to date", seconds)
    if ran:
        _note_time(stage, seconds)


@flow(name="stiv", flow_run_name="full pipeline")
def pipeline(stages: list[str] | None = None, force: bool = False) -> None:
    """Bring the stages of dvc.yaml up to date, one after the other.

    examples:
      stiv pipeline
      stiv pipeline --stages shots scores clips
      stiv pipeline --stages shots --force      although nothing has changed

    Args:
        stages: only these, in the order of the pipeline; none is all of them.
        force: run them although nothing has changed.

    Raises:
        ValueError: a name is no stage.
    """
    show_ours()  # a worker runs this without our command
    known = dag.in_order()
    if unknown := [stage for stage in stages or [] if stage not in known]:
        raise ValueError(f"no stage {', '.join(unknown)} in dvc.yaml: it is one of {', '.join(known)}")
    for stage in known:
        if stages is None or stage in stages:
            reproduce(stage, force)


def _note_time(stage: str, seconds: float) -> None:
    TIMES.parent.mkdir(exist_ok=True)
    times = json.loads(TIMES.read_text())["stages"] if TIMES.exists() else {}
    times[stage] = {"seconds": round(seconds, 1), "skipped": False}
    with atomic.atomic_write(TIMES) as tmp_path:
        tmp_path.write_text(json.dumps({"stages": times}, indent=2))
