import base64

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.decoding import stills
from tasks.decoding.measures import jpeg

NOISE = np.random.default_rng(0).integers(0, 256, (48, 96, 3), np.uint8)


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("shape", [(1, 1, 3), (48, 96, 3), (144, 256, 3)])
def test_a_still_as_we_write_it_is_one(shape):
    pictures = np.zeros(shape, np.uint8), np.resize(NOISE, shape)
    assert all(stills.from_base64(text(jpeg(picture))) == jpeg(picture) for picture in pictures)


def encoded(suffix: str, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, NOISE, options)
    assert done
    return data.tobytes()


def with_size(height: int, width: int) -> bytes:
    content = bytearray(jpeg(NOISE))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = height.to_bytes(2) + width.to_bytes(2)
    return bytes(content)


OTHERS = {
    "nothing": b"",
    "another format": encoded(".png"),
    "other tables": encoded(".jpg", cv2.IMWRITE_JPEG_QUALITY, 80),
    "progressive": encoded(".jpg", cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "grey": cv2.imencode(".jpg", NOISE[..., 0], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes(),
    "a comment": jpeg(NOISE)[:2] + b"\xff\xfe\x00\x04hi" + jpeg(NOISE)[2:],
    "two pictures": jpeg(NOISE) * 2,
    "something after": jpeg(NOISE) + b"GIF89a\xff\xd9",
    "cut short": jpeg(NOISE)[:-2],
    "its beginning alone": jpeg(NOISE)[:100],
    "no pixels": with_size(0, 96),
    "four billion pixels": with_size(65535, 65535),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_anything_else_is_none(kind):
    with pytest.raises(ValueError):
        stills.from_base64(text(OTHERS[kind]))


@given(st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text()), st.binary().map(text)))
def test_nothing_raises_anything_else(value):
    with pytest.raises(ValueError):
        stills.from_base64(value)


@settings(deadline=None)
@given(st.binary(max_size=4000))
def test_whatever_the_coded_picture_is_a_later_stage_can_decode_it(coded):
    start = jpeg(NOISE)
    content = start[: start.index(b"\xff\xda") + 14] + coded.replace(b"\xff", b"\xff\x00") + b"\xff\xd9"
    assert stills.from_base64(text(content)) == content
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and decoded.shape == NOISE.shape
