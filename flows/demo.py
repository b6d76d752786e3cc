"""`stiv demo`: the whole road in one command, through a Prefect server of its own.

The server keeps its database in `.prefect/` of the workspace and listens on a free loopback port. Everything that
is started here is stopped here, also when this process is killed.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen
from uuid import UUID

from stiv_model.lifetime import die_with_parent

_HOME = Path(".prefect")
_REPORT = Path("reports/report.html")
_JUDGE = Path("reports/judge.json")
_SERVER_SECONDS = 120
_STOP_SECONDS = 20


def demo(port: int = 0) -> None:
    """Turn the raw videos into a trained model and a report, through a Prefect server started for it.

    Run again, it does only what has changed. Killed, the same command goes on where it was.

    example: stiv demo            (a free port is taken; --port 4200 asks for that one)
    """
    started = time.monotonic()
    port = port or _free_port()
    _refuse_taken(port)
    _HOME.mkdir(exist_ok=True)
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(_HOME.resolve()),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "DO_NOT_TRACK": "1",
    }
    os.environ |= environment
    with _child(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        environment,
        "server",
    ) as server:
        _say(started, f"Prefect server: http://127.0.0.1:{port} (its log: {_HOME}/server.log)")
        _wait_for(url, server)
        # imported now: the client reads the address of the server when it is imported
        asyncio.run(_close_dead_runs())
        with _child([sys.executable, "-m", "flows", "serve"], environment, "serve"):
            state = asyncio.run(_run(started))
    if state != "Completed":
        raise ValueError(f"the pipeline ended as {state}: the lines above say why; the same command goes on from there")
    _say(started, f"done in {time.monotonic() - started:.0f} s")
    for mode, figures in json.loads(_JUDGE.read_text())["modes"].items():
        _say(started, f"judge, {mode}: {figures}")
    _say(started, f"the report: {_REPORT.resolve()}")


async def _close_dead_runs() -> None:
    """Mark flow runs of an earlier, killed demo as crashed: nobody else would, and they would run for ever."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Crashed

    alive = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED"]}}})
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_run_filter=alive):
            await client.set_flow_run_state(run.id, Crashed(message="its process was killed"), force=True)


async def _run(started: float) -> str:
    """Run the deployment through the API, printing its log as it comes; return the name of its final state."""
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound

    from flows.serve import NAME

    async with get_client() as client:
        while True:
            try:
                deployment = await client.read_deployment_by_name(f"stiv/{NAME}")
                if deployment.status == "READY":
                    break
            except ObjectNotFound:
                pass
            if time.monotonic() - started > _SERVER_SECONDS:
                raise TimeoutError(f"no deployment stiv/{NAME} after {_SERVER_SECONDS} s: see {_HOME}/serve.log")
            await asyncio.sleep(0.5)
        run = await client.create_flow_run_from_deployment(deployment.id)
        _say(started, f"flow run {run.name} of stiv/{NAME}")
        seen: set[UUID] = set()
        while True:
            run = await client.read_flow_run(run.id)
            await _tell_log(client, run.id, seen, started)
            if run.state is not None and run.state.is_final():
                await asyncio.sleep(2)  # the last lines come with a delay
                await _tell_log(client, run.id, seen, started)
                return run.state.name
            await asyncio.sleep(1)


async def _tell_log(client, run: UUID, seen: set[UUID], started: float) -> None:
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort

    chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    page = await client.read_logs(chosen, limit=200, sort=LogSort.TIMESTAMP_DESC)
    for line in reversed(page):
        if line.id not in seen:
            seen.add(line.id)
            late = (datetime.now(UTC) - line.timestamp).total_seconds()
            _say(started + late, line.message)


@contextlib.contextmanager
def _child(command: list[str], environment: dict[str, str], name: str) -> Iterator[subprocess.Popen]:
    """Run a child for as long as the block lasts, its output in a file."""
    with (_HOME / f"{name}.log").open("a") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, preexec_fn=die_with_parent
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(url: str, server: subprocess.Popen) -> None:
    limit = time.monotonic() + _SERVER_SECONDS
    while time.monotonic() < limit:
        if server.poll() is not None:
            raise OSError(f"the Prefect server ended with exit code {server.returncode}: see {_HOME}/server.log")
        with (
            contextlib.suppress(URLError, ConnectionError, TimeoutError),
            urlopen(f"{url}/health", timeout=2),
        ):
            return
        time.sleep(0.3)
    raise TimeoutError(f"the Prefect server did not answer within {_SERVER_SECONDS} s: see {_HOME}/server.log")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(
                f"port {port} on 127.0.0.1 is in use: stop what listens there, or leave --port away to take a free one"
            ) from error


def _say(started: float, line: str) -> None:
    print(f"[{time.monotonic() - started:4.0f} s] {line}", flush=True)
