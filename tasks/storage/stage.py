"""One shape of a stage: given -> shards -> one shard -> join -> account.

A stage is a class that says what it is given, what decides about a row, how what is given is cut, what becomes of one
shard, and how the shards' rows become its output. `run` does the rest for all of them: it goes on at the first missing
shard, takes over the rows of an earlier run, and puts the output in place only when it is whole and its accounts
balance. The caller says who runs the shards: this process, or Prefect's tasks (`flows/running/run_stage.py`).
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from tasks.storage import atomic, reuse, shards
from tasks.storage.shards import Shard, Work
from tasks.storage.tables import Account, write_report

log = logging.getLogger(__name__)

_GIVEN = "given.arrow"


class Joined(NamedTuple):
    """What a stage says of its finished output: the accounts, and what its report has beside them."""

    accounts: tuple[Account, ...]
    others: dict[str, object] = {}  # noqa: RUF012 (never changed)


class Stage(ABC):
    """What a stage declares. Its instances hold settings and the paths of its inputs, and no row."""

    name: ClassVar[str]
    """In dvc.yaml: a noun, what it makes."""
    verb: ClassVar[str]
    """What it does with a shard, for the names of tasks."""
    unit: ClassVar[str]
    """In which its progress is counted."""
    schema: pa.Schema
    """Columns of what it is given."""
    weight: ClassVar[str | None] = None
    """Column that says how heavy an input is, in the unit of `shard_size`; None counts inputs."""
    weight_per_unit: ClassVar[float] = 1
    """How much weight is one `unit` of progress."""
    together: ClassVar[str | None] = None
    """Column of whole numbers: inputs with the same, one after the other, are in one shard. None for any."""
    retries: ClassVar[int] = 1
    """How often a shard that failed is tried again, where that may help (`stiv_model/errors/failures.py`)."""
    retry_delay_seconds: ClassVar[float] = 0

    @abstractmethod
    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        """Give everything that gets a row, in the order of the output's rows, with the columns of `schema`.

        Args:
            scratch: folder for what has to be written to put it in order; it goes soon after.
            reusable: folder of what an earlier run has made; it may not be there.

        Raises:
            FileNotFoundError, ValueError: an input is missing, or is not what it must be.
        """

    @abstractmethod
    def decides(self) -> dict[str, Any]:
        """Return what decides about a row beside the code and the inputs, as JSON has it: settings, models.

        Rows that were made with the same are reused from an earlier run, by stages that reuse.
        """

    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """Return what else makes a run the same one, as JSON has it: hashes of inputs, and the size of shards.

        Work that an attempt with the same left behind is gone on with. It is asked for after `given`.
        """

    @abstractmethod
    def shard_size(self) -> float:
        """Return what a shard may weigh."""

    def reuse(self, given: Path, reusable: Path, reused: Path) -> bool:
        """Write what an earlier run has made already; return whether that is anything. Nothing, unless a stage reuses.

        Args:
            given: file of the inputs, with their `shards.PLACE`.
            reusable: folder of what the earlier run left by `save_reusable`; it may not be there.
            reused: table that is written, of rows with their `shards.PLACE`, in its order: inputs that no shard has.
        """
        return False

    def save_reusable(self, given: Path, out: Path, reusable: Path) -> None:  # noqa: B027 (nothing, by default)
        """Keep what `reuse` of the next run looks for."""

    @abstractmethod
    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[Shard], None]]:
        """Return a context that gives the function for one shard, which may be called in other processes.

        Args:
            product: folder that becomes the output, for what a shard writes beside its table.
            reusable: folder of what an earlier run has made, for a stage that reuses rows within its shards.
        """

    @abstractmethod
    def join(self, work: Work, product: Path) -> Joined:
        """Put the shards' rows together in `product`.

        Raises:
            AssertionError: an account does not balance (`queries.settle`).
            ValueError: too much has failed, or nothing is usable.
        """


RunShards = Callable[[Stage, Callable[[Shard], None], list[Shard]], None]
"""Calls a function with every shard that is not done: it gets the stage, the function and all shards."""


def in_turn(stage: Stage, work_on: Callable[[Shard], None], parts: list[Shard]) -> None:
    """Work on the shards that are not done, one after the other, in this process."""
    for part in parts:
        if not part.is_done:
            work_on(part)


def run(
    stage: Stage,
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
    made_with = stage.decides() | {"code": code}
    reusable = reuse.folder(earlier, stage.name, made_with)
    with atomic.scratch(out) as scratch:
        listed = scratch / _GIVEN
        shards.write_given(listed, stage.given(scratch, reusable), stage.schema)
        folder = atomic.open_workdir(out, made_with | stage.inputs() | {"earlier": reuse.fingerprint(reusable)})
        given = listed.replace(folder / _GIVEN)
    product = folder / "product"
    product.mkdir(exist_ok=True)
    work = divide(stage, given, reusable, folder)
    with stage.worker(product, reusable) as work_on:
        run_shards(stage, work_on, work.parts)
    accounts, others = stage.join(work, product)
    write_report(report, *accounts, **others)
    atomic.finish(product, out)
    stage.save_reusable(given, out, reusable)
    atomic.discard_workdir(out)
    return accounts


def divide(stage: Stage, given: Path, reusable: Path, folder: Path) -> Work:
    """Take over what an earlier run has made, and cut the rest of what a stage is given into shards."""
    reused, todo = folder / "reused.parquet", given
    is_any = stage.reuse(given, reusable, reused)
    if is_any:
        todo = folder / "todo.arrow"
        count = shards.rest(given, reused, todo)
        log.info("%d are reused from an earlier run", count)
    parts = shards.cut(folder, todo, stage.shard_size(), stage.weight, stage.together)
    return Work(given, reused if is_any else None, todo, parts, reusable)


def alone(work_on: Callable[[Shard], None]) -> AbstractContextManager[Callable[[Shard], None]]:
    """Return the context of a stage whose shards need nothing opened beside them."""
    return nullcontext(work_on)
