"""A unit of work: a task run of Prefect within a flow run, and the same work without one where nothing is shown."""

import logging
import time
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task
from prefect.context import FlowRunContext
from prefect.states import Failed, State

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def is_shown() -> bool:
    """Say whether a flow run of Prefect is going on here, to which a task run can be added."""
    return FlowRunContext.get() is not None


def call(unit: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do a unit of work; one that fails is tried again as often as its task says.

    Raises:
        Exception: as the unit does.
    """
    if is_shown():
        return unit(*args, **kwargs)
    delay = unit.retry_delay_seconds if isinstance(unit.retry_delay_seconds, int | float) else 0
    for left in range(unit.retries, -1, -1):
        try:
            return unit.fn(*args, **kwargs)
        except Exception as error:
            if not left or not _may_go_well(unit, error):
                raise
            log.warning("%s failed and is tried again: %s", unit.name, error)
            time.sleep(delay)
    raise AssertionError("the last attempt returns or raises")


def _may_go_well(unit: Task[P, R], error: Exception) -> bool:
    if unit.retry_condition_fn is None:
        return True
    state: State[Any] = Failed(message=f"{type(error).__name__}: {error}", data=error)
    return cast(bool, unit.retry_condition_fn(unit, None, state))  # type: ignore[arg-type]  # there is no task run
