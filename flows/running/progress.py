"""What the flows share: run shards with progress in the log, show accounts and pages."""

import concurrent.futures
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

import prefect.artifacts
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


_AHEAD = 256
"""Pieces of work that are submitted before others have ended: each costs the driver memory while it waits."""

_TAIL = 3
"""When so few shards are left, they are named with how long they take."""


def run_shards(unit: str, parts: list[Shard], submit: Callable[[Shard], Future], weight_per_unit: float = 1) -> None:
    """Submit every shard that is not done yet, wait for all, and log how far they are.

    Args:
        unit: what is counted, in the plural, for the log.
        submit: starts one shard's task.
        weight_per_unit: how much of a shard's weight is one `unit`.

    Raises:
        Exception: of the first shard that failed, once the others have ended; what is done stays done.
    """
    todo = [part for part in parts if not part.is_done]
    follow(unit, [Work(part.path.stem, part.weight / weight_per_unit, partial(submit, part)) for part in todo])


def follow(unit: str, work: list[Work]) -> None:
    """Submit pieces of work, some ahead, wait for all, and log how far they are; the slow ones at the end are named.

    Args:
        unit: what is counted, in the plural, for the log.

    Raises:
        Exception: of the first one that failed, once those that were submitted have ended.
    """
    started, total, done = time.monotonic(), sum(one.size for one in work), 0.0
    ended: SimpleQueue[Future] = SimpleQueue()
    waiting = iter(work)
    left: dict[Future, Work] = {}
    failed: list[Future] = []

    def submit_next() -> None:
        if (one := next(waiting, None)) is not None:
            future: Any = one.submit()
            left[future] = one
            future.add_done_callback(ended.put)

    for _ in range(_AHEAD):
        submit_next()
    while left:
        future = ended.get()
        done += left.pop(future).size
        if _has_failed(future):
            failed.append(future)
        elif not failed:
            submit_next()
        _log_progress(unit, done, total, time.monotonic() - started, [one.name for one in left.values()])
    for future in failed:
        future.result()


def _has_failed(future: Future) -> bool:
    """Say whether a piece of work that has ended did so with an error."""
    if isinstance(future, PrefectFuture):
        future.wait()  # for its state, which may be a moment behind
        return not future.state.is_completed()
    return future.exception() is not None


def _log_progress(unit: str, done: float, total: float, seconds: float, left: list[str]) -> None:
    rate = done / seconds
    log.info(
        "%.4g of %.4g %s, %s, %.0f s left%s",
        done,
        total,
        unit,
        f"{rate:.3g} per second" if rate > 0.1 else f"{60 * rate:.3g} per minute",
        (total - done) / rate if rate else 0,
        f"; still at work: {', '.join(left)}" if 0 < len(left) <= _TAIL else "",
    )


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
