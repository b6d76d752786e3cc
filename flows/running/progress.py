"""What the flows of sharded stages share: run shards with progress in the log, publish accounts."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from prefect.artifacts import create_table_artifact
from prefect.futures import PrefectFuture, as_completed

from tasks.storage import tables
from tasks.storage.shards import Shard

log = logging.getLogger(__name__)


class Work(NamedTuple):
    """A piece of a stage's work."""

    name: str
    size: float
    """In the unit that the log counts in."""
    submit: Callable[[], PrefectFuture[Any]]
    """Starts its task."""


def _one(_: Any) -> float:
    return 1


_TAIL = 3
"""When so few shards are left, they are named with how long they take."""


def run_shards(
    unit: str, parts: list[Shard], submit: Callable[[Shard], PrefectFuture[Any]], weight: Callable[[Any], float] = _one
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
    create_table_artifact(
        key=f"account-{stage}", table=table, description=f"What became of everything in stage {stage}"
    )
