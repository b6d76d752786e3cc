"""Run a stage (`tasks/storage/stage.py`) under Prefect: a task per shard, progress in the log, accounts on the page."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from prefect import task

from flows.running.code_hash import code_of
from flows.running.progress import publish, run_shards, submitter
from flows.running.settings import EngineSettings
from flows.running.task_runner import resources
from stiv_model.errors import redaction
from stiv_model.errors.failures import is_worth_retrying
from tasks.storage.shards import Shard
from tasks.storage.stage import Stage, run


def run_stage(stage: Stage, out: Path, report: Path, engine: EngineSettings) -> None:
    """Make a stage's output, its shards as tasks of the engine, and publish its accounts.

    Args:
        out: folder that is written, whole or not at all.
        report: file for the accounts (JSON).

    Raises:
        ValueError, OSError: as the stage's methods say.
    """
    with resources(engine):
        accounts = run(stage, out, report, code_of(stage.name), partial(submit_all, engine.shards_at_once))
    publish(stage.name, *accounts)


def submit_all(at_once: int, stage: Stage, work_on: Callable[[Shard], None], parts: list[Shard]) -> None:
    """Submit a unit of work for every shard that is not done, and wait for all.

    Args:
        at_once: so many are worked on at a time where Prefect's engine does not decide that.

    Raises:
        Exception: of the first shard that failed, once the others have ended; what is done stays done.
    """
    one = work_on_shard.with_options(
        name=f"{stage.verb}_shard",
        task_run_name=stage.verb + " {shard.path.stem}",
        retries=stage.retries,
        retry_delay_seconds=stage.retry_delay_seconds,
        retry_condition_fn=is_worth_retrying,
    )
    with submitter(one, at_once) as submit:
        run_shards(stage.unit, parts, partial(submit, work_on), stage.weight_per_unit)


@task
@redaction.redacted
def work_on_shard(work_on: Callable[[Shard], None], shard: Shard) -> None:
    """Work on one shard of a stage, as a task of Prefect's."""
    redaction.install()  # in a worker of Ray's it is not yet
    work_on(shard)
