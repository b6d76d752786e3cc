"""What the flows of sharded stages share: run shards with progress in the log, publish accounts."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from prefect.artifacts import create_table_artifact
from prefect.futures import PrefectFuture, as_completed

from tasks import manifest

log = logging.getLogger(__name__)

SHARDS_AT_ONCE = 4
"""Shards that a stage's thread runner has in hand; the work itself is in the fence's processes and in C."""


def run_shards(unit: str, sizes: list[int], submit: Iterable[Callable[[], PrefectFuture[Any]]]) -> None:
    """Submit every shard, wait for all, and log how far they are.

    Args:
        unit: what a shard holds, for the log.
        sizes: how many of them each shard holds.
        submit: starts one shard's task.

    Raises:
        Exception: of the first shard that failed, once the others have ended; what is done stays done.
    """
    total, done, started = sum(sizes), 0, time.monotonic()
    size_of = {start(): size for start, size in zip(submit, sizes, strict=True)}
    for future in as_completed(list(size_of)):
        done += size_of[future]
        seconds = time.monotonic() - started
        rate = done / seconds
        log.info("%d of %d %s, %.1f per second, %.0f s left", done, total, unit, rate, (total - done) / rate)
    for future in size_of:
        future.result()


def publish(stage: str, *accounts: manifest.Account) -> None:
    """Write a stage's accounts to the log and to the flow run's page."""
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
