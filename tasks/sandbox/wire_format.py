"""What a sandboxed child hands back: a line of JSON and raw arrays in one file. Never a pickle, never believed.

The child may be in the hands of the video that it reads, so the reader checks everything before it uses anything:
here the container, in `tasks/sandbox/answer_schemas.py` the values.
"""

import json
import math
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

MAX_TRACEBACK = 2000
"""Characters that are kept, of which the last say most."""

_DTYPES = ("|u1", "<i4", "<i8", "<f4", "<f8")
_MAX_DIMENSIONS, _MAX_SIDE = 5, 1 << 31
_MAX_ITEMS = 2_000_000  # of the JSON: a few bytes of it can become a hundred in memory


class Result(NamedTuple):
    values: dict[str, Any]
    """What the function gave, arrays among it."""
    missing: dict[str, str]
    """Ways of confining that the kernel refused, and why."""


def write(file: BinaryIO, values: dict[str, Any], missing: dict[str, str]) -> None:
    """Write a function's values; arrays of the types above may be among them."""
    arrays = {name: np.ascontiguousarray(value) for name, value in values.items() if isinstance(value, np.ndarray)}
    head = {
        "values": {name: value for name, value in values.items() if name not in arrays},
        "missing": missing,
        "arrays": [[name, array.dtype.str, array.shape] for name, array in arrays.items()],
    }
    file.write(json.dumps(head).encode() + b"\n")
    for array in arrays.values():
        file.write(array.tobytes())
    file.flush()


def read(path: Path, max_bytes: int) -> Result:
    """Read what a child wrote.

    Raises:
        ValueError: it is not what `write` writes, or longer than `max_bytes`.
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    line, _, rest = content.partition(b"\n")
    if len(content) > max_bytes or line.count(b",") > _MAX_ITEMS:
        raise ValueError("the video process handed back too much")
    try:
        head = json.loads(line)
        values, missing, arrays = head["values"], head["missing"], head["arrays"]
        arrays = [(str(name), str(dtype), [int(side) for side in shape]) for name, dtype, shape in arrays]
        missing = {str(name): str(why)[:200] for name, why in missing.items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError("the video process handed back something else than a result") from error
    if not isinstance(values, dict):
        raise ValueError("the video process handed back something else than values")
    return Result(values | _arrays(arrays, rest), missing)


def _arrays(described: list[tuple[str, str, list[int]]], content: bytes) -> dict[str, np.ndarray]:
    found, start = {}, 0
    for name, dtype, shape in described:
        if dtype not in _DTYPES or len(shape) > _MAX_DIMENSIONS or any(not 0 <= side < _MAX_SIDE for side in shape):
            raise ValueError(f"the video process handed back an array of {dtype[:20]!r} {shape[:9]}")
        count = math.prod(shape)
        if count * np.dtype(dtype).itemsize > len(content) - start:
            raise ValueError(f"the video process handed back an array of {shape} that is not there")
        found[name] = np.frombuffer(content, dtype, count, start).reshape(shape).copy()
        start += found[name].nbytes
    return found
