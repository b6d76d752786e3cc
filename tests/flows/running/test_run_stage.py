"""Shards as units of work: which are tried again."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flows.running.run_stage import submit_all
from tasks.storage import shards
from tasks.storage.stage import Joined, Stage, alone


class Numbers(Stage):
    """Five numbers, each a shard."""

    name, verb, unit = "numbers", "count", "numbers"
    schema = pa.schema([("number", pa.int64())])
    retries = 2

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"number": range(5)})

    def decides(self) -> dict[str, Any]:
        return {}

    def inputs(self) -> dict[str, Any]:
        return {}

    def shard_size(self) -> float:
        return 1

    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[shards.Shard], None]]:
        return alone(lambda shard: None)

    def join(self, work: shards.Work, product: Path) -> Joined:
        return Joined(())


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (ValueError("source is wrong"), 1),
        (FileNotFoundError(2, "no such file", "videos.parquet"), 1),
        (ConnectionResetError(104, "reset by peer"), 3),
        (RuntimeError("of a library"), 3),
    ],
)
def test_a_shard_is_tried_again_only_where_that_may_help(tmp_path, error, attempts):
    tried: list[int] = []

    def work_on(shard: shards.Shard) -> None:
        [row] = shard.read()
        tried.append(row["number"])
        if row["number"] == 3:
            raise error

    numbers = Numbers()
    shards.write_given(tmp_path / "given", numbers.given(tmp_path, tmp_path), numbers.schema)
    parts = shards.cut(tmp_path, tmp_path / "given", 1)
    with pytest.raises(type(error), match=str(error.args[-1])):
        submit_all(1, numbers, work_on, parts)
    assert tried.count(3) == attempts
    assert {number: tried.count(number) for number in (0, 1, 2)} == {0: 1, 1: 1, 2: 1}
