"""What is kept of a table's columns is what the columns say."""

import hashlib
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stiv_model.latents import table_columns

NAMES = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=30)


def collected(names: list[str]) -> pa.LargeStringArray:
    """Take names in by three and three, of slices that begin anywhere."""
    found = table_columns.Names(len(names) + 5)
    column = pa.array(["before", *names], pa.string())
    for first in range(1, len(column), 3):
        found.extend(column[first : first + 3])
    return found.array()


@settings(deadline=None, max_examples=50)
@given(names=NAMES)
def test_names_have_the_order_and_the_hash_of_their_utf8(names):
    found = collected(names)
    assert found.to_pylist() == names
    order = table_columns.in_order(found)
    ordered = sorted(names, key=str.encode)
    assert [names[number] for number in order] == ordered
    assert list(table_columns.repeated(found, order)) == [one for one, other in pairwise(ordered) if one == other]
    sha256 = hashlib.sha256("".join(f"{name}\n" for name in ordered).encode()).hexdigest()
    assert table_columns.sha256_of(found, order) == sha256


def test_names_are_the_same_whichever_block_they_fall_in(monkeypatch):
    monkeypatch.setattr(table_columns, "_ROWS_AT_ONCE", 4)
    names = [f"{number:02d}" for number in (3, 1, 2, 5, 4, 7, 6, 9, 8, 5, 9)]
    found = collected(names)
    order = table_columns.in_order(found)
    assert list(table_columns.repeated(found, order)) == ["05", "09"]
    text = "".join(f"{name}\n" for name in sorted(names))
    assert table_columns.sha256_of(found, order) == hashlib.sha256(text.encode()).hexdigest()


@settings(deadline=None, max_examples=20)
@given(names=NAMES)
def test_stored_names_are_found_by_number(names):
    stored = table_columns.StoredNames([pa.array(names[:7], pa.string()), pa.array(names[7:], pa.string())])
    assert [stored[number] for number in range(len(names))] == names


def test_texts_are_numbered_in_the_order_of_meeting():
    numbered = table_columns.Numbered("ok")
    assert numbered.numbers(pa.array(["b", None, "ok", "b"])).tolist() == [1, -1, 0, 1]
    assert numbered.numbers(pa.array(["a", "b"])).tolist() == [2, 1]
    assert numbered.texts == ["ok", "b", "a"]


def test_hashes_are_the_bytes_of_their_digits():
    digests = [hashlib.sha256(bytes([number])) for number in range(5)]
    column = pa.array(["x", *(digest.hexdigest() for digest in digests)])[1:]
    assert [row.tobytes() for row in table_columns.hashes(column)] == [digest.digest() for digest in digests]


@pytest.mark.parametrize("wrong", ["", "ab", "g" * 64, "é" * 32])
def test_what_is_no_hash_is_refused(wrong):
    with pytest.raises(ValueError, match=r"digits|[Nn]on-hexadecimal"):
        table_columns.hashes(pa.array(["ab" * 32, wrong]))


def test_rows_that_are_ok_are_told_from_others_and_from_none():
    batch = pa.record_batch({"status": ["ok", "failed", None, "ok"]})
    assert np.flatnonzero(table_columns.is_ok(batch)).tolist() == [0, 3]
