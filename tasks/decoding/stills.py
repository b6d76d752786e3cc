"""The small pictures of a shot on their way out of the sandbox: JPEG as we write it, or they are no stills."""

import base64
from typing import Any

import numpy as np

from tasks.decoding.measures import jpeg

_MAX_PIXELS = 1 << 24


def _start() -> tuple[bytes, int]:
    """Return what every still begins with, up to the coded picture, and where in it its height and width are.

    ITU-T T.81, B.2.2 and B.2.3: they are the bytes 5 to 8 after the marker SOF0 begins; SOS, of three components, has
    14 bytes in all.
    """
    example = jpeg(np.zeros((8, 8, 3), np.uint8))
    return example[: example.index(b"\xff\xda") + 14], example.index(b"\xff\xc0") + 5


_START, _SIZE_AT = _start()


def from_base64(value: Any) -> bytes:
    """Return a still, which is like one of `measures.jpeg` down to its tables.

    Later stages decode it without a sandbox: of what a child hands back, nothing but the size and the coded picture may
    be of its own choice.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, str):
        raise ValueError("it is no text")
    content = base64.b64decode(value, validate=True)
    start, picture = content[: len(_START)], content[len(_START) :]
    if start[:_SIZE_AT] + start[_SIZE_AT + 4 :] != _START[:_SIZE_AT] + _START[_SIZE_AT + 4 :]:
        raise ValueError("it does not begin as our JPEG does")
    height, width = (int.from_bytes(start[at : at + 2]) for at in (_SIZE_AT, _SIZE_AT + 2))
    if not 1 <= height * width <= _MAX_PIXELS:
        raise ValueError(f"it is {width} x {height} pixels")
    # a byte of 255 within the coded picture has a 0 after it, or it begins something else
    if not picture.endswith(b"\xff\xd9") or picture.count(b"\xff") != picture.count(b"\xff\x00") + 1:
        raise ValueError("there is more in it than one picture")
    return content
