"""Accounts and tables of rows that pass by are those of rows that are held."""

from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.storage import queries, tables

ROWS = pa.schema([("key", pa.string()), ("status", pa.string()), ("reason", pa.string())])
KEYS = st.text("ab'\n\x00é", max_size=2)
STATES = st.sampled_from([("ok", None), ("rejected", "dark"), ("failed", "gone"), ("ok", "gone"), ("rejected", None)])


def cut(rows: list[dict], schema: pa.Schema, lengths: list[int]) -> Iterator[pa.RecordBatch]:
    start = 0
    for length in [*lengths, len(rows)]:
        yield pa.RecordBatch.from_pylist(rows[start : start + length], schema=schema)
        start += length


@given(
    keys=st.lists(KEYS, max_size=12),
    states=st.lists(STATES, min_size=12, max_size=12),
    change=st.sampled_from(["none", "shuffled", "lost", "twice", "foreign"]),
    lengths=st.lists(st.integers(0, 4), max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_settle_says_what_reconcile_says(keys, states, change, lengths):
    rows = [{"key": key, "status": s, "reason": r} for key, (s, r) in zip(keys, states, strict=False)]
    rows = {
        "none": rows,
        "shuffled": rows[::-1],
        "lost": rows[1:],
        "twice": rows + rows[:1],
        "foreign": [*rows, {"key": "other", "status": "ok", "reason": None}],
    }[change]

    def told(settle) -> object:
        try:
            return settle()
        except AssertionError as error:
            return str(error) if "balance" in str(error) else "a row's state"

    given_keys = [{"key": key} for key in keys]
    streamed = told(
        lambda: queries.settle(
            "rows",
            cut(given_keys, ROWS.empty_table().select(["key"]).schema, lengths[::-1]),
            cut(rows, ROWS, lengths),
            "key",
        )
    )
    held = told(lambda: tables.reconcile("rows", keys, rows, "key"))
    if streamed != held:  # both faults at once: either may be told
        assert isinstance(streamed, str)
        assert isinstance(held, str)
        assert "a row's state" in (streamed, held)


@pytest.mark.parametrize("group", [1, 3, 7, 100])
def test_a_table_is_the_same_bytes_however_its_rows_came(tmp_path, group):
    rows = [{"key": f"{place}", "status": "ok", "reason": None if place % 2 else "x"} for place in range(23)]
    for name, lengths in (("one", []), ("other", [5, 0, 1, 9])):
        queries.write(tmp_path / name, cut(rows, ROWS, lengths), ROWS, group)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert tables.read_rows(tmp_path / "one", ROWS) == rows


def test_names_that_need_quoting_are_names(tmp_path):
    folder = tmp_path / "it's; DROP TABLE x -- \"\n"
    folder.mkdir()
    tables.write_rows(folder / "a.parquet", [{"key": "b"}, {"key": "a"}], ROWS)
    with queries.connect(tmp_path) as connection:
        query = f"SELECT * FROM {queries.scan([folder / 'a.parquet'])} ORDER BY key"
        [batch] = queries.batches(connection, query, ROWS)
    assert batch["key"].to_pylist() == ["a", "b"]
