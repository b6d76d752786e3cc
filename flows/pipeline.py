"""The flow `stiv`: every stage of dvc.yaml in turn, each a task whose child process is a flow run of its own."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from prefect import flow, task

import flows.stages
from flows.params import load_params
from flows.running import fork_servers, stage_names
from flows.running.logs import show_ours
from flows.running.run_context import child_environment
from flows.stages import TIMES
from stiv_model.errors import redaction
from stiv_model.process_exit import follow_into_end
from tasks.operations.task_runs import call
from tasks.storage import atomic
from tasks.training import launch

log = logging.getLogger(__name__)

SERVED_BY = "STIV_SERVED_BY"
"""The variable with the number of the process that serves the pipeline's deployments."""


@task(task_run_name="{stage}")
@redaction.redacted
def reproduce(stage: str, force: bool) -> None:
    """Bring one stage up to date and note how long it took."""
    started = time.monotonic()
    ran = flows.stages.reproduce(stage, force, child_environment(), lambda line: log.info("%s", line) if line else None)
    seconds = time.monotonic() - started
    log.info("stage %s %s, %.1f s", stage, "ran" if ran else "is up to date", seconds)
    if ran:
        _note_time(stage, seconds)


@flow(name="stiv", flow_run_name="full pipeline")
@redaction.redacted
def pipeline(stages: list[str] | None = None, force: bool = False, retrain: list[str] | None = None) -> None:
    """Bring the stages of dvc.yaml up to date, one after the other; what has not changed is skipped.

    examples:
      stiv pipeline
      stiv pipeline --stages shots scores clips
      stiv pipeline --stages shots --force      although nothing has changed
      stiv pipeline --retrain t2v               although only the code has, and the last run took long

    Args:
        stages: Stages of dvc.yaml to bring up to date, in the order of the pipeline; without it, all of them. Those of
            views/stages.yaml run only where they are named here.
        force: Run them although nothing has changed.
        retrain: Trainings to repeat although only code has changed, however long their last run took.

    Raises:
        ValueError: a name is no stage; or a stage cannot start, or is a training that took long and of which nothing
            but the code has changed. Nothing of that stage is touched then.
    """
    if served_by := os.environ.get(SERVED_BY):
        follow_into_end(int(served_by))
    redaction.install()  # a worker runs this without our command
    show_ours()
    of_itself = flows.stages.in_order()
    known = [*of_itself, *flows.stages.optional()]
    if unknown := [stage for stage in [*(stages or []), *(retrain or [])] if stage not in known]:
        raise ValueError(f"no stage {', '.join(unknown)} in dvc.yaml: it is one of {', '.join(known)}")
    wanted = of_itself if stages is None else [stage for stage in known if stage in stages]
    flows.stages.take_up(wanted)
    with fork_servers.started(wanted, of_ranks=launch.local_environment(load_params().training)):
        for place, stage in enumerate(wanted):
            found = None if force else flows.stages.changes(stage)
            if found:
                if stage not in (retrain or []):
                    refuse_retraining(stage, found, load_params().pipeline.retrain_hours)
                if found.removes:
                    check_start(stage)
            if (force or found) and any(words.startswith("train ") for words in stage_names.commands(wanted[place:])):
                fork_servers.import_ahead()
            call(reproduce, stage, force)


def refuse_retraining(stage: str, changes: flows.stages.Changes, limit_hours: float) -> None:
    """Stop before a training that took long is repeated for a change of code alone.

    Raises:
        ValueError: what has changed, and the three ways on.
    """
    if changes.others or not changes.code:
        return
    verb, *options = flows.stages.command(stage)
    if verb != "train":
        return
    hours = trained_hours(Path(options[options.index("--curve") + 1]))
    if hours is not None and hours <= limit_hours:
        return
    took = (
        "took nobody knows how long (there is no table of its losses)" if hours is None else f"took {hours:.3g} hours"
    )
    raise ValueError(
        f"stage {stage}: only code has changed ({', '.join(changes.code)}), and its last run {took}, more than "
        f"pipeline.retrain_hours {limit_hours:g}: nothing was touched. If the change makes no difference to weights, "
        f"`dvc commit {stage}` keeps them; `stiv pipeline --retrain {stage}` trains again; or raise "
        "pipeline.retrain_hours in params.yaml"
    )


def trained_hours(curve: Path) -> float | None:
    """Return how long a training took, by the last row of its table of losses; None without one."""
    if not curve.is_file():
        return None
    head, *rows = curve.read_text().splitlines()
    return float(rows[-1].split("\t")[head.split("\t").index("seconds")]) / 3600 if rows else None


def check_start(stage: str) -> None:
    """Make a stage's checks at the door, before DVC removes what it made last time; in a process of their own.

    Raises:
        ValueError: it cannot start; the message says why.
    """
    words = [sys.executable, "-m", "flows", "check", stage]
    done = subprocess.run(words, capture_output=True, text=True, env=child_environment())
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise ValueError(f"stage {stage} cannot start, and nothing was touched: {said.removeprefix('stiv check: ')}")


def _note_time(stage: str, seconds: float) -> None:
    TIMES.parent.mkdir(exist_ok=True)
    times = json.loads(TIMES.read_text())["stages"] if TIMES.exists() else {}
    times[stage] = {"seconds": round(seconds, 1), "skipped": False}
    with atomic.atomic_write(TIMES) as tmp_path:
        tmp_path.write_text(json.dumps({"stages": times}, indent=2))
