"""What the flows share: run shards with progress in the log, show accounts and pages."""

import concurrent.futures
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import prefect.artifacts
import prefect.futures
from prefect import Task
from prefect.futures import PrefectFuture

from tasks.operations.task_runs import call, is_shown
from tasks.storage import tables
from tasks.storage.shards import Shard

log = logging.getLogger(__name__)


Future = PrefectFuture[Any] | concurrent.futures.Future[Any]


class Work(NamedTuple):
    """A piece of a stage's work."""

    name: str
    size: float
    """In the unit that the log counts in."""
    submit: Callable[[], Future]
    """Starts its task."""


def _one(_: Any) -> float:
    return 1


@contextmanager
def submitter(unit: Task[..., Any], at_once: int) -> Iterator[Callable[..., Future]]:
    """Give what submits a unit of work: to the flow's task runner, or to threads of ours where no flow run is shown.

    Args:
        at_once: threads; a task runner has a number of its own.
    """
    if is_shown():
        yield unit.submit
        return
    with ThreadPoolExecutor(at_once) as threads:
        try:
            yield partial(threads.submit, call, unit)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)  # what has begun ends
            raise


_TAIL = 3
"""When so few shards are left, they are named with how long they take."""


def run_shards(
    unit: str, parts: list[Shard], submit: Callable[[Shard], Future], weight: Callable[[Any], float] = _one
) -> None:
    """Submit every shard that is not done yet, wait for all, and log how far they are.

    Args:
        unit: what is counted, in the plural, for the log.
        submit: starts one shard's task.
        weight: returns how much one item of a shard counts, in `unit`; without it, 1.

    Raises:
        Exception: of the first shard that failed, once the others have ended; what is done stays done.
    """
    todo = [part for part in parts if not part.is_done]
    follow(unit, [Work(part.path.stem, sum(map(weight, part.given)), partial(submit, part)) for part in todo])


def follow(unit: str, work: list[Work]) -> None:
    """Submit pieces of work, wait for all, and log how far they are; the slow ones at the end are named.

    Args:
        unit: what is counted, in the plural, for the log.

    Raises:
        Exception: of the first one that failed, once the others have ended.
    """
    started, total, done = time.monotonic(), sum(one.size for one in work), 0.0
    left = {one.submit(): one for one in work}
    futures = list(left)
    as_completed: Any = prefect.futures.as_completed if is_shown() else concurrent.futures.as_completed
    for future in as_completed(futures):
        done += left.pop(future).size
        seconds = time.monotonic() - started
        rate = done / seconds
        log.info(
            "%.4g of %.4g %s, %s, %.0f s left%s",
            done,
            total,
            unit,
            f"{rate:.3g} per second" if rate > 0.1 else f"{60 * rate:.3g} per minute",
            (total - done) / rate if rate else 0,
            f"; still at work: {', '.join(one.name for one in left.values())}" if 0 < len(left) <= _TAIL else "",
        )
    for future in futures:
        future.result()


def publish(stage: str, *accounts: tables.Account) -> None:
    """Write a stage's accounts to the log, and as a table to the page of the flow run in Prefect's UI."""
    for account in accounts:
        why = ", ".join(f"{reason} {count}" for reason, count in account.reasons.items())
        log.info(
            "%s: %d given, %d ok, %d rejected, %d failed%s",
            *(account.unit, account.given, account.ok, account.rejected, account.failed),
            f" ({why})" if why else "",
        )
    table = [account._asdict() | {"reasons": str(account.reasons or "")} for account in accounts]
    show("table", f"account-{stage}", table=table, description=f"What became of everything in stage {stage}")


def show(kind: Literal["image", "link", "markdown", "table"], key: str, **content: Any) -> None:
    """Put an artifact of Prefect on the page of the flow run; one that cannot be made costs a line, not the stage."""
    if not is_shown():
        return
    try:
        getattr(prefect.artifacts, f"create_{kind}_artifact")(key=key, **content)
    except Exception as error:  # whatever a server that went away may cause
        log.warning("%s is not on the run's page: %s", key, error)
