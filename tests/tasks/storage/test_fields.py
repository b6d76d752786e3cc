from typing import NamedTuple

import pyarrow as pa
import pytest

from tasks.storage import fields

TABLE = pa.schema(
    [
        ("clip", pa.string()),
        ("frames", pa.int32()),
        ("motion", pa.float64()),
        ("colours", pa.list_(pa.string())),
        ("stills", pa.list_(pa.binary())),
        ("status", pa.string()),
    ]
)


@fields.columns_of(TABLE)
class Read(NamedTuple):
    """Some columns, in another order."""

    motion: float | None
    clip: str
    frames: int
    colours: list[str]
    stills: list[bytes]


def test_the_columns_named_are_read_and_no_others():
    row = {"clip": "a", "frames": 3, "motion": None, "colours": ["red"], "stills": [b"x"], "status": "ok"}
    assert fields.take(Read, row) == Read(None, "a", 3, ["red"], [b"x"])
    assert fields.take_all(Read, [row, row | {"clip": "b"}])[1].clip == "b"
    with pytest.raises(KeyError, match="frames"):
        fields.take(Read, {"clip": "a", "motion": 1.0})


class Unknown(NamedTuple):
    clip: str
    shot: str


class OfAnotherType(NamedTuple):
    frames: float | None


class OfOtherItems(NamedTuple):
    colours: list[bytes]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Unknown, r"Unknown\.shot is .*str.*, and the table has no column"),
        (OfAnotherType, r"OfAnotherType\.frames is float \| None, and the table has int32"),
        (OfOtherItems, r"OfOtherItems\.colours is list\[bytes\], and the table has list"),
    ],
)
def test_fields_that_are_not_in_the_table_are_refused_when_they_are_declared(kind, said):
    with pytest.raises(TypeError, match=said):
        fields.columns_of(TABLE)(kind)
