"""Rows that an earlier table has as well, found while both pass by."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.storage.matching import matched

SCHEMA = pa.schema(
    [("video", pa.string()), ("clip", pa.string()), ("x", pa.float64()), ("names", pa.list_(pa.string()))]
)
VALUES = st.sampled_from([None, 0.0, -0.0, 1.5, float("inf")])
NAMES = st.sampled_from([None, [], ["a"], ["a", None]])
ROWS = st.dictionaries(
    st.tuples(st.sampled_from(["", "a", "é", "z'"]), st.integers(0, 9)), st.tuples(VALUES, NAMES), max_size=12
)


def batches(rows: list[dict], length: int) -> list[pa.RecordBatch]:
    cut = [rows[start : start + length] for start in range(0, len(rows), length)]
    return [pa.RecordBatch.from_pylist(some, schema=SCHEMA) for some in [*cut, []]]


def table(found: dict) -> list[dict]:
    rows = [{"video": v, "clip": f"{v}-{n}", "x": x, "names": names} for (v, n), (x, names) in found.items()]
    return sorted(rows, key=lambda row: row["video"].encode())


@given(now=ROWS, before=ROWS, lengths=st.tuples(st.integers(1, 5), st.integers(1, 5)))
@settings(max_examples=200, deadline=None)
def test_it_is_the_join_of_both(now, before, lengths):
    """Some rows are the same in both: keys are few."""
    rows, others = table(now), table(before)
    known = {row["clip"]: row for row in others}
    expected = [row for row in rows if known.get(row["clip"]) == row]
    pairs = list(matched(batches(rows, lengths[0]), batches(others, lengths[1]), "video", "clip", ["x", "names"]))
    assert [row for own, _ in pairs for row in own.to_pylist()] == expected
    assert [row for _, other in pairs for row in other.to_pylist()] == expected


def test_a_number_that_is_none_is_as_no_other():
    row = {"video": "a", "clip": "a-1", "x": float("nan"), "names": None}
    [(own, _)] = matched(batches([row], 1), batches([row], 1), "video", "clip", ["x"])
    assert len(own) == 0
