"""Flow runs that this workspace took and whose process is gone: nobody else would close them."""

import socket
from datetime import UTC, datetime
from pathlib import Path

from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.states import Crashed


def tag() -> str:
    """Return what the flow runs of this workspace are marked with: its machine and folder."""
    return f"{socket.gethostname()}:{Path.cwd()}"


async def close(is_own_server: bool) -> int:
    """Mark as crashed what is pending or running and has nobody who works on it; return how many that were.

    Whoever calls this holds the lock of what takes the runs, so that none of them is alive.

    Args:
        is_own_server: of this workspace alone, where a run that nobody has taken in time is left over too; else only
            runs that carry its tag are closed.
    """
    states = ["RUNNING", "PENDING", *(["SCHEDULED"] if is_own_server else [])]
    asked = {"state": {"type": {"any_": states}}} | ({} if is_own_server else {"tags": {"all_": [tag()]}})
    closed = 0
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(asked)):
            later = run.state and run.state.is_scheduled() and run.next_scheduled_start_time
            if later and later > datetime.now(UTC):
                continue
            await client.set_flow_run_state(run.id, Crashed(message="its process was killed"), force=True)
            closed += 1
    return closed
