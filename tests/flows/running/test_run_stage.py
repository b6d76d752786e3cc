"""Shards as units of work: which are tried again."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from flows.running.run_stage import submit_all
from tasks.storage import shards
from tasks.storage.stage import Joined, Stage, alone


class Numbers(Stage[int]):
    """Five numbers, each a shard."""

    name, verb, unit = "numbers", "count", "numbers"
    retries = 2

    def given(self) -> list[int]:
        return list(range(5))

    def decides(self) -> dict[str, Any]:
        return {}

    def inputs(self, given: list[int]) -> dict[str, Any]:
        return {}

    def shard_size(self) -> float:
        return 1

    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[shards.Shard], None]]:
        return alone(lambda shard: None)

    def join(self, parts: list[shards.Shard], product: Path) -> Joined:
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
        tried.extend(shard.given)
        if shard.given == [3]:
            raise error

    parts = shards.cut(tmp_path, list(range(5)), 1, lambda _: 1)
    with pytest.raises(type(error), match=str(error.args[-1])):
        submit_all(1, Numbers(), work_on, parts)
    assert tried.count(3) == attempts
    assert {number: tried.count(number) for number in (0, 1, 2)} == {0: 1, 1: 1, 2: 1}
