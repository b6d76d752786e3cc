"""One shape of a stage: given -> shards -> one shard -> join -> account.

A stage is a class that says what it is given, what decides about a row, how what is given is cut, what becomes of one
shard, and how the shards' rows become its output. `run` does the rest for all of them: it goes on at the first missing
shard, takes over the rows of an earlier run, and puts the output in place only when it is whole and its accounts
balance. The caller says who runs the shards: this process, or Prefect's tasks (`flows/running/run_stage.py`).
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from tasks.storage import atomic, reuse, shards
from tasks.storage.shards import Shard
from tasks.storage.tables import Account, write_report

log = logging.getLogger(__name__)

Item = TypeVar("Item")


class Joined(NamedTuple):
    """What a stage says of its finished output: the accounts, and what its report has beside them."""

    accounts: tuple[Account, ...]
    others: dict[str, object] = {}  # noqa: RUF012 (never changed)


class Stage(ABC, Generic[Item]):
    """What a stage declares. Its instances hold settings and the paths of its inputs, and no state."""

    name: ClassVar[str]
    """In dvc.yaml: a noun, what it makes."""
    verb: ClassVar[str]
    """What it does with a shard, for the names of tasks."""
    unit: ClassVar[str]
    """In which its progress is counted (`amount`)."""
    retries: ClassVar[int] = 1
    """How often a shard that failed is tried again, where that may help (`stiv_model/errors/failures.py`)."""
    retry_delay_seconds: ClassVar[float] = 0

    @abstractmethod
    def given(self) -> list[Item]:
        """Return everything that gets a row, in the order of the output's rows.

        Raises:
            FileNotFoundError, ValueError: an input is missing, or is not what it must be.
        """

    @abstractmethod
    def decides(self) -> dict[str, Any]:
        """Return what decides about a row beside the code and the inputs, as JSON has it: settings, models.

        Rows that were made with the same are reused from an earlier run, by stages that reuse.
        """

    @abstractmethod
    def inputs(self, given: list[Item]) -> dict[str, Any]:
        """Return what else makes a run the same one, as JSON has it: hashes of inputs, and the size of shards.

        Work that an attempt with the same left behind is gone on with.
        """

    @abstractmethod
    def shard_size(self) -> float:
        """Return what a shard may weigh."""

    def weight(self, item: Item) -> float:
        """Return how heavy an item is, in the unit of `shard_size`: 1, so that this counts them."""
        return 1

    def amount(self, item: Item) -> float:
        """Return how much an item adds to the progress, in `unit`."""
        return 1

    def load_reusable(self, reusable: Path, work: Path, given: list[Item]) -> Shard:
        """Make a shard, `shards.reused`, of what an earlier run has made already; of nothing, unless a stage reuses."""
        return shards.reused(work, [])

    def save_reusable(self, given: list[Item], out: Path, reusable: Path) -> None:
        """Keep what `load_reusable` of the next run looks for."""

    @abstractmethod
    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[Shard], None]]:
        """Return a context that gives the function for one shard, which may be called in other processes.

        Args:
            product: folder that becomes the output, for what a shard writes beside its table.
            reusable: folder of what an earlier run has made, for a stage that reuses rows within its shards.
        """

    @abstractmethod
    def join(self, parts: list[Shard], product: Path) -> Joined:
        """Put the shards' rows together in `product`.

        Raises:
            AssertionError: an account does not balance (`tables.reconcile`).
            ValueError: too much has failed, or nothing is usable.
        """


RunShards = Callable[[Stage[Any], Callable[[Shard], None], list[Shard]], None]
"""Calls a function with every shard that is not done: it gets the stage, the function and all shards."""


def in_turn(stage: Stage[Any], work_on: Callable[[Shard], None], parts: list[Shard]) -> None:
    """Work on the shards that are not done, one after the other, in this process."""
    for part in parts:
        if not part.is_done:
            work_on(part)


def run(
    stage: Stage[Any],
    out: Path,
    report: Path,
    code: str,
    run_shards: RunShards = in_turn,
    earlier: Path = reuse.EARLIER,
) -> tuple[Account, ...]:
    """Make a stage's output, or go on where the last attempt was stopped; return its accounts.

    Args:
        out: folder that is written, whole or not at all.
        report: file that gets the accounts.
        code: hash of the code that decides about the output.
        run_shards: who runs the shards.
        earlier: folder of what earlier runs have made.

    Raises:
        Exception: as the methods of the stage and `run_shards` say. What is done stays in `OUT.partial`.
    """
    given = stage.given()
    made_with = stage.decides() | {"code": code}
    reusable = reuse.folder(earlier, stage.name, made_with)
    work = atomic.open_workdir(out, made_with | stage.inputs(given) | {"earlier": reuse.fingerprint(reusable)})
    product = work / "product"
    product.mkdir(exist_ok=True)
    reused = stage.load_reusable(reusable, work, given)
    if reused.given:
        log.info("%d are reused from an earlier run", len(reused.given))
    parts = shards.cut(work, shards.rest(given, reused), stage.shard_size(), stage.weight)
    with stage.worker(product, reusable) as work_on:
        run_shards(stage, work_on, parts)
    accounts, others = stage.join([*([reused] if reused.given else []), *parts], product)
    write_report(report, *accounts, **others)
    atomic.finish(product, out)
    atomic.discard_workdir(out)
    stage.save_reusable(given, out, reusable)
    return accounts


def alone(work_on: Callable[[Shard], None]) -> AbstractContextManager[Callable[[Shard], None]]:
    """Return the context of a stage whose shards need nothing opened beside them."""
    return nullcontext(work_on)
