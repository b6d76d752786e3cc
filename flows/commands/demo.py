"""`stiv demo`: the whole road in one command, through a Prefect server of its own.

The server keeps its database in `.prefect/` of the workspace and listens on a free loopback port.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows import stages
from flows.params import load_params
from flows.running import stage_names
from flows.running.server import START_SECONDS, child, free_port, only_one, refuse_ended, refuse_taken, server
from stiv_model.latents import data_plan

if TYPE_CHECKING:
    from prefect.client.schemas.objects import TaskRun  # Prefect reads the server's address when it is imported

Progress = Callable[[list["TaskRun"]], str | None]
"""What is to be said of the pipeline's tasks, one per stage that has begun; None for nothing."""

_HOME = Path(".prefect")
_PROGRESS_SECONDS = 60
_ASKS_OFTEN = {"PREFECT_RUNNER_POLL_FREQUENCY": "2"}  # seconds; Prefect's own 10 are time in which nothing happens


def demo(port: int = 0) -> None:
    """Turn the raw videos into a trained model and a report, through a Prefect server started for it.

    Run again, it does only what has changed. Killed, the same command goes on where it was.

    Args:
        port: Port for the Prefect server on this machine; 0 takes a free one.

    Raises:
        ValueError: DVC cannot read the workspace, a training cannot run on this machine, another demo is at work in the
            workspace, or the pipeline did not complete.
        OSError: what was started for it ended.

    example: stiv demo            (a free port is taken; --port 4200 asks for that one)
    """
    started = time.monotonic()
    run_all(started, port)
    (report,) = stage_names.outputs("report")
    say(started, f"done in {time.monotonic() - started:.0f} s; the report: {Path(report).resolve()}")


def run_all(started: float, port: int = 0, progress: Progress | None = None) -> None:
    """Run every stage of the workspace that is out of date through a Prefect server started for it, and say how.

    Args:
        started: when the command began, by `time.monotonic`.
        port: for the server; 0 takes a free one.
        progress: what to say of the stages now and then; nothing without it.

    Raises:
        ValueError: DVC cannot read the workspace, a training cannot run on this machine, another demo is at work in the
            workspace, or the pipeline did not complete.
        OSError: what was started for it ended.
    """
    port = port or free_port()
    refuse_taken(port)
    stages.in_order()  # refuses, before anything is started, a workspace that DVC cannot read
    _refuse_recipes()
    ahead = child(["flows.first_imports"], _HOME, "first_imports", dict(os.environ))
    with only_one(_HOME, port), ahead, server(_HOME, port) as env:
        login = f"its page asks for the line in {_HOME}/auth; its log: {_HOME}/server.log"
        say(started, f"Prefect server with UI: http://127.0.0.1:{port} ({login})")
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            del os.environ[name]  # said to another Prefect
        os.environ |= env  # before the client is imported: it reads the address then
        from flows.running import dead_runs

        asyncio.run(dead_runs.close(is_own_server=True))
        with child(["flows", "serve"], _HOME, "serve", env | _ASKS_OFTEN) as serving:
            state = asyncio.run(_run(started, serving, progress))
    if not state.is_completed():
        raise ValueError(f"{state.name}: {state.message}; once that is mended, the same command goes on from there")
    card, _ = stage_names.metrics("evaluate")
    for line in card_lines(Path(card)):
        say(started, line)


def _refuse_recipes() -> None:
    """Fail at the door, and not after the minutes of the stages before it, where a training cannot run on this machine.

    Raises:
        ValueError: with the first such recipe.
    """
    params = load_params()
    for recipe in stage_names.recipes():
        data_plan.check(recipe, params.train[recipe], params.model, params.training)


async def _run(started: float, serving: subprocess.Popen[bytes], progress: Progress | None) -> Any:
    """Run the deployment through the API, printing its log as it comes; return its final state.

    Args:
        serving: the process that runs it.

    Raises:
        OSError: that process ended.
    """
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound

    from flows.commands.serve import NAME

    async with get_client() as client:
        while True:
            try:
                deployment = await client.read_deployment_by_name(f"stiv/{NAME}")
                if deployment.status == "READY":
                    break
            except ObjectNotFound:
                pass
            refuse_ended(serving, _HOME / "serve.log")
            if time.monotonic() - started > START_SECONDS:
                raise TimeoutError(f"no deployment stiv/{NAME} after {START_SECONDS} s: see {_HOME}/serve.log")
            await asyncio.sleep(0.5)
        run = await client.create_flow_run_from_deployment(deployment.id)
        say(started, f"flow run {run.name} of stiv/{NAME}")
        seen: set[UUID] = set()
        told = time.monotonic()
        while True:
            run = await client.read_flow_run(run.id)
            await _tell_log(client, run.id, seen, started)
            if progress and time.monotonic() - told > _PROGRESS_SECONDS:
                told = time.monotonic()
                if line := progress(await _task_runs(client, run.id)):
                    say(started, line)
            if run.state is not None and run.state.is_final():
                await asyncio.sleep(2)  # the last lines come with a delay
                await _tell_log(client, run.id, seen, started)
                return run.state
            refuse_ended(serving, _HOME / "serve.log")
            await asyncio.sleep(1)


async def _task_runs(client: Any, run: UUID) -> "list[TaskRun]":
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
    found: list[Any] = await client.read_task_runs(flow_run_filter=chosen)
    return found


async def _tell_log(client: Any, run: UUID, seen: set[UUID], started: float) -> None:
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort

    chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    page = await client.read_logs(chosen, limit=200, sort=LogSort.TIMESTAMP_DESC)
    for line in reversed(page):
        if line.id not in seen:
            seen.add(line.id)
            late = (datetime.now(UTC) - line.timestamp).total_seconds()
            say(started + late, line.message)


def card_lines(path: Path) -> list[str]:
    """Put the judge's figures on lines: one for each mode, and for held-out and seen combinations; and the alarms."""
    from tasks.evaluation import judgement, sealing  # seconds to import
    from tasks.pages import card_page

    card = sealing.read(path)
    judged = [
        f"judge, {mode}, {combinations.replace('_', ' ')}, {figures['n']} videos: {_shares(figures)}"
        for mode, combinations, figures in judgement.lines_of(judgement.modes(card))
    ]
    return judged + card_page.headlines(card)


def _shares(figures: dict[str, Any]) -> str:
    named = {name: value["share"] for name, value in figures.items() if isinstance(value, dict) and "share" in value}
    return ", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in named.items())


def say(started: float, line: str) -> None:
    """Print a line behind the seconds that have passed."""
    print(f"[{time.monotonic() - started:4.0f} s] {line}", flush=True)
