"""What a stage is given is cut, worked on and put together again, without anybody holding all of it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.storage import queries, shards, tables

SCHEMA = pa.schema([("key", pa.string()), ("weight", pa.float64()), ("part", pa.int64())])
OUT = pa.schema([("key", pa.string()), ("status", pa.string()), ("reason", pa.string())])


def write_given(path: Path, weights: list[float], parts: list[int] | None = None) -> list[dict]:
    rows = [
        {"key": f"{place:06d}", "weight": weight, "part": parts[place] if parts else place}
        for place, weight in enumerate(weights)
    ]
    batches = (pa.RecordBatch.from_pylist(rows[start : start + 3], schema=SCHEMA) for start in range(0, len(rows), 3))
    shards.write_given(path, batches, SCHEMA)
    return rows


def plain(rows: list[dict]) -> list[dict]:
    return [{name: row[name] for name in SCHEMA.names} for row in rows]


@given(
    weights=st.lists(st.floats(0, 5), max_size=40),
    size=st.floats(0.1, 9),
    lengths=st.lists(st.integers(1, 4), min_size=40, max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_shards_hold_every_input_once_in_order_and_weigh_no_more_than_asked(tmp_path_factory, weights, size, lengths):
    folder = tmp_path_factory.mktemp("given")
    of_parts = [part for part, length in enumerate(lengths) for _ in range(length)][: len(weights)]
    rows = write_given(folder / "given", weights, of_parts)
    cut = shards.cut(folder, folder / "given", size, "weight", "part")
    assert plain([row for one in cut for row in one.read()]) == rows
    for number, one in enumerate(cut):
        own = one.read()
        assert one.weight == pytest.approx(sum(row["weight"] for row in own))
        assert one.weight <= size * (1 + 1e-9) or len({row["part"] for row in own}) == 1
        others = [row["part"] for other in cut[:number] + cut[number + 1 :] for row in other.read()]
        assert not {row["part"] for row in own}.intersection(others)  # what belongs together is together


def test_there_are_never_more_shards_than_an_engine_bears(tmp_path):
    write_given(tmp_path / "given", [1.0] * 5000)
    cut = shards.cut(tmp_path, tmp_path / "given", 1)
    assert 1000 <= len(cut) <= shards.MOST
    assert sum(one.inputs for one in cut) == 5000


@given(count=st.integers(0, 50), size=st.floats(0.1, 60))
def test_inputs_that_weigh_one_each_are_cut_as_any_others(count, size):
    found, total = [], size
    for place in range(count):
        if total + 1 > size:
            found.append(place)
            total = 0.0
        total += 1
    assert shards._cut(np.ones(count), size) == found


def test_nothing_given_is_no_shard(tmp_path):
    write_given(tmp_path / "given", [])
    assert shards.cut(tmp_path, tmp_path / "given", 3, "weight", "part") == []


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 9000])
def test_a_shard_reads_its_rows_wherever_they_lie(tmp_path, count):
    """Batches of the file hold 4,096 rows."""
    rows = write_given(tmp_path / "given", [1.0] * count)
    for one in shards.cut(tmp_path, tmp_path / "given", 3000):
        assert plain(one.read()) == rows[one.first : one.first + one.inputs]


def row_of(place: int) -> dict:
    status = ("ok", "rejected", "failed")[place % 3]
    return {"key": f"{place:06d}", "status": status, "reason": None if status == "ok" else f"reason_{place % 5}"}


@pytest.mark.parametrize("of_reused", ["none", "all", "some", "first", "last"])
def test_rows_of_shards_and_of_an_earlier_run_are_those_of_a_run_on_all(tmp_path, of_reused):
    rows = write_given(tmp_path / "given", [1.0] * 500)
    drawn = np.random.default_rng(3).random(500) < 0.4
    is_reused = {"none": drawn & False, "all": drawn | True, "some": drawn}.get(of_reused)
    if is_reused is None:
        is_reused = np.arange(500) < 100 if of_reused == "first" else np.arange(500) >= 400
    reused, todo = tmp_path / "reused.parquet", tmp_path / "todo"
    taken = [row_of(place) | {shards.PLACE: place} for place in np.flatnonzero(is_reused).tolist()]
    tables.write_rows(reused, taken, shards.placed(OUT))
    assert shards.rest(tmp_path / "given", reused, todo) == is_reused.sum()
    cut = shards.cut(tmp_path, todo, 7)
    for one in cut:
        one.write([row_of(int(row["key"])) for row in one.read()], OUT)
    work = shards.Work(tmp_path / "given", reused, todo, cut, tmp_path)
    queries.write(tmp_path / "out.parquet", shards.joined(work, OUT), OUT)
    found = tables.read_rows(tmp_path / "out.parquet", OUT)
    assert found == [row_of(place) for place in range(500)]
    expected = tables.reconcile("rows", [row["key"] for row in rows], found, "key")
    outcomes = queries.outcomes(tmp_path / "out.parquet", "key")
    assert queries.settle("rows", work.keys("key"), outcomes, "key") == expected


def test_an_input_that_is_reused_twice_stops_the_stage(tmp_path):
    write_given(tmp_path / "given", [1.0] * 3)
    tables.write_rows(tmp_path / "reused", [row_of(1) | {shards.PLACE: 1}] * 2, shards.placed(OUT))
    with pytest.raises(AssertionError, match="2 rows of 1 inputs"):
        shards.rest(tmp_path / "given", tmp_path / "reused", tmp_path / "todo")
