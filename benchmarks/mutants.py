"""Small videos in eight pairs of container and codec, and broken versions of them, the same for the same seed."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

PAIRS = (
    ("mp4", "libx264"),
    ("mp4", "libx265"),
    ("mkv", "libsvtav1"),
    ("webm", "libvpx-vp9"),
    ("avi", "mpeg4"),
    ("mov", "prores_ks"),
    ("ts", "mpeg2video"),
    ("flv", "libx264"),
)
_PIXEL_FORMATS = {"prores_ks": "yuv422p10le"}
_QUIET = {"libx265": {"x265-params": "log-level=none:pools=none"}, "libsvtav1": {"preset": "12"}}
_EXTREMES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x01000000)
_HEADER_BYTES = 1024


def write_video(path: Path, codec: str, frames: int = 12, pixels: int = 64) -> bytes:
    """Write a video of moving noise, 24 frames per second; return its bytes."""
    picture = np.random.default_rng(0).integers(0, 255, (pixels, pixels, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=_QUIET.get(codec, {}))
        assert isinstance(stream, av.VideoStream), codec
        stream.width = stream.height = pixels
        stream.pix_fmt = _PIXEL_FORMATS.get(codec, "yuv420p")
        stream.codec_context.thread_count = 1
        for index in range(frames):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.roll(picture, 3 * index, axis=1), format="rgb24"))
            )
        container.mux(stream.encode(None))
    return path.read_bytes()


def originals(folder: Path) -> dict[tuple[str, str], bytes]:
    """Write one video per pair into `folder`; return their bytes."""
    return {pair: write_video(folder / f"{pair[1]}.{pair[0]}", pair[1]) for pair in PAIRS}


def flip_bits(content: bytearray, chance: random.Random) -> None:
    for _ in range(2 ** chance.randrange(9)):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def flip_header_bits(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 16)):
        content[chance.randrange(min(_HEADER_BYTES, len(content)))] ^= 1 << chance.randrange(8)


def set_number(content: bytearray, chance: random.Random) -> None:
    """Put extreme numbers over some 32-bit words, of either byte order: sizes, counts and offsets among them."""
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(max(1, len(content) - 4))
        content[at : at + 4] = struct.pack(chance.choice("<>") + "I", chance.choice(_EXTREMES))


def insert_block(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    content[at:at] = chance.randbytes(chance.randint(1, 4096))


def delete_block(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    del content[at : at + chance.randint(1, max(1, len(content) // 4))]


def overwrite_block(content: bytearray, chance: random.Random) -> None:
    at, size = chance.randrange(len(content)), chance.randint(1, 1024)
    size = min(size, len(content) - at)
    content[at : at + size] = chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size)))


def repeat_block(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    content[at:at] = content[at : at + chance.randint(1, 2048)] * chance.randint(1, 20)


def swap_blocks(content: bytearray, chance: random.Random) -> None:
    """Swap two pieces of a file cut in three; in mp4 and mov two neighbouring boxes."""
    first, second = sorted(chance.sample(_cuts(content), 2))
    content[:] = content[:first] + content[second:] + content[first:second]


def _cuts(content: bytearray) -> list[int]:
    """Return the places of the top-level boxes, or even places in what has none."""
    places, at = [], 0
    while at + 8 <= len(content) and content[at + 4 : at + 8].isalpha():
        places.append(at)
        at += max(8, int.from_bytes(content[at : at + 4], "big"))
    return places if len(places) > 2 else [len(content) * part // 8 for part in range(8)]


def cut_off(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(1, len(content)) :]


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits,
    flip_header_bits,
    set_number,
    insert_block,
    delete_block,
    overwrite_block,
    repeat_block,
    swap_blocks,
    cut_off,
)


def mutant(content: bytes, seed: str) -> tuple[bytes, str]:
    """Return a broken version of a video, and what was done to it: one to three of MUTATIONS."""
    chance = random.Random(seed)
    broken, done = bytearray(content), []
    for mutate in chance.choices(MUTATIONS, k=chance.choice((1, 1, 2, 3))):
        if len(broken) > 1:
            mutate(broken, chance)
            done.append(mutate.__name__)
    return bytes(broken), " ".join(done)
