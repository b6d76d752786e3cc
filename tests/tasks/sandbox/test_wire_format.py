import io
import json
from pathlib import Path

import numpy as np
import pytest

from tasks.sandbox import wire_format

OK = {"status": "ok", "reason": None}


def written(values: dict) -> bytes:
    file = io.BytesIO()
    wire_format.write(file, values, {"Landlock": "not there"})
    return file.getvalue()


def read(folder: Path, content: bytes, max_bytes: int = 10_000) -> wire_format.Result:
    (folder / "result").write_bytes(content)
    return wire_format.read(folder / "result", max_bytes)


def test_values_and_arrays_come_back_as_they_were(tmp_path):
    pictures = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    rates = np.array([0.5, 2.0])
    found = read(tmp_path, written(OK | {"shots": [{"end": 1.5}], "pictures": pictures, "rates": rates}))
    np.testing.assert_array_equal(found.values["pictures"], pictures)
    np.testing.assert_array_equal(found.values["rates"], rates)
    assert found.values["shots"] == [{"end": 1.5}] and found.missing == {"Landlock": "not there"}
    found.values["pictures"][0] = 0  # the caller's own, to write to


def head(values: object = OK, arrays: object = (), missing: object = None) -> bytes:
    return json.dumps({"values": values, "missing": missing or {}, "arrays": arrays}).encode() + b"\n"


HOSTILE = {
    "nothing": b"",
    "no JSON": b"\x80\x04\x95pickle\n",
    "another shape": b"[1, 2]\n",
    "nested without end": b"[" * 100_000 + b"\n",
    "values that are none": head([["status", "ok"]]),
    "objects": head(arrays=[["a", "|O", [1]]]) + bytes(8),
    "an array that is not there": head(arrays=[["a", "|u1", [1 << 40]]]),
    "sides below zero": head(arrays=[["a", "|u1", [-1, -8]]]) + bytes(8),
    "endless sides": head(arrays=[["a", "|u1", [0, 1 << 62, 1 << 62]]]),
    "a side that is no number": head(arrays=[["a", "|u1", ["x"]]]),
    "an infinite side": b'{"values": {"status": "ok"}, "missing": {}, "arrays": [["a", "|u1", [Infinity]]]}\n',
    "too much": head() + bytes(20_000),
    "missing as text": head(missing="all"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_child_could_write_instead_is_an_error_and_no_more(tmp_path, kind):
    with pytest.raises(ValueError, match="the video process handed back"):
        read(tmp_path, HOSTILE[kind])


def test_json_of_very_many_things_is_not_parsed(tmp_path):
    with pytest.raises(ValueError, match="too much"):
        read(tmp_path, b"[" + b"0," * 2_100_000 + b"0]\n", max_bytes=10**7)
