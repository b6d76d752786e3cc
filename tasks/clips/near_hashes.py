"""Which clips have video hashes that differ in few bits, without comparing all with all.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012):
hashes within r bits of each other agree, up to r // m flips, in one of m bands at least, so each band has a table and
few buckets of it are looked at. Exact, and the same on every machine.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tasks.clips.byte_rows import gather

_USUAL_BYTES = 32  # of a hash, where there is none
_MAX_BAND_BITS = 22  # a table of 16 MB
_MAX_PAIRS = 1 << 21  # compared at once: some 100 MB


class Band(NamedTuple):
    """A run of bits of every hash, and the flips of them that are looked for."""

    first: int
    width: int
    flips: int

    @property
    def probes(self) -> int:
        return sum(comb(self.width, flips) for flips in range(self.flips + 1))


class Table(NamedTuple):
    """The hashes by the value of one band."""

    keys: np.ndarray
    """Of every hash."""
    starts: np.ndarray
    """Where in `rows` each value begins, and where the last one ends."""
    rows: np.ndarray
    masks: np.ndarray
    """What turns a key into those that are looked at."""


class NearHashes:
    """The pairs of hashes that differ in at most `bits`.

    Args:
        hashes: uint8 (hashes, bytes), a whole number of 8 bytes.
    """

    def __init__(self, hashes: np.ndarray, bits: int):
        self._words, self._bits = hashes.view(np.uint64), bits
        self._tables = [table(hashes, band) for band in bands(8 * hashes.shape[1], bits, len(hashes))]

    def among(self, rows: np.ndarray) -> np.ndarray:
        """Return which of these hashes are near each other: bool (rows, rows)."""
        own = self._words[rows]
        far = np.zeros((len(rows), len(rows)), np.uint16)
        for word in range(own.shape[1]):
            far += np.bitwise_count(own[:, None, word] ^ own[None, :, word])
        return far <= self._bits

    def pairs(self, rows: np.ndarray, is_open: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield pairs that are near, as two arrays: one of `rows`, and one of all hashes that is open."""
        for places, others in _may_be_near(self._tables, rows):
            wanted = is_open[others]
            own, others = rows[places[wanted]], others[wanted]
            near = np.bitwise_count(self._words[own] ^ self._words[others]).sum(axis=1) <= self._bits
            yield own[near], others[near]


def matrix(pieces: Iterable[tuple[np.ndarray, pa.Array]], count: int) -> np.ndarray:
    """Return hashes as uint8 (count, bytes).

    Args:
        pieces: rows of the matrix, int64 (n,), and the hashes that belong there, n values none of which is null.

    Raises:
        ValueError: they are of several lengths, or of no whole number of 8 bytes.
    """
    hashes, lengths = gather(pieces, count)
    if len(lengths) > 1 or any(length % 8 for length in lengths):
        raise ValueError(f"video hashes of {sorted(lengths)} bytes: score all videos, earlier releases too, alike")
    return hashes if lengths else np.zeros((count, _USUAL_BYTES), np.uint8)


def bands(num_bits: int, bits: int, count: int) -> list[Band]:
    """Return the bands by which `count` hashes of `num_bits` within `bits` of each other are found fastest.

    With m bands and `bits` = m * e + rest, two such hashes differ by e flips at most in one of the first rest + 1
    bands, or by e - 1 in one of the others.
    """

    def split(number: int) -> list[Band]:
        edges = [num_bits * band // number for band in range(number + 1)]
        most, rest = divmod(bits, number)
        every = (Band(edges[band], edges[band + 1] - edges[band], most - (band > rest)) for band in range(number))
        return [band for band in every if band.flips >= 0]

    def cost(split_bands: list[Band]) -> float:
        # a bucket looked at, and the hashes in it
        return sum(band.probes * (1 + count / 2**band.width) for band in split_bands)

    fewest = -(-num_bits // _MAX_BAND_BITS)
    return min((split(number) for number in range(fewest, num_bits // 4 + 1)), key=cost)


def table(hashes: np.ndarray, band: Band) -> Table:
    """Sort hashes by the value of a band."""
    values = [_band_values(hashes[first : first + 65536], band) for first in range(0, len(hashes), 65536)]
    keys = np.concatenate(values) if values else np.zeros(0, np.uint32)
    counts = np.bincount(keys, minlength=1 << band.width)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    flipped = (places for flips in range(band.flips + 1) for places in combinations(range(band.width), flips))
    masks = np.array([sum(1 << place for place in places) for places in flipped], np.uint32)
    return Table(keys, starts, np.argsort(keys, kind="stable").astype(np.int32), masks)


def _band_values(hashes: np.ndarray, band: Band) -> np.ndarray:
    last = band.first + band.width
    bits = np.unpackbits(hashes[:, band.first // 8 : -(-last // 8)], axis=1)
    bits = bits[:, band.first % 8 :][:, : band.width]
    padded = np.pad(bits, ((0, 0), (32 - band.width, 0)))
    return np.packbits(padded, axis=1).view(">u4").ravel().astype(np.uint32)


def _may_be_near(tables: list[Table], own: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs that may be near: a place in `own`, and a row of the tables."""
    for one in tables:
        probes = (one.keys[own][:, None] ^ one.masks[None, :]).ravel()
        begins = one.starts[probes]
        counts = (one.starts[probes + 1] - begins).astype(np.int64)
        ends = np.cumsum(counts)
        at = 0
        while at < len(probes):
            done = ends[at - 1] if at else 0
            stop = max(at + 1, int(np.searchsorted(ends, done + _MAX_PAIRS, side="right")))
            size = counts[at:stop]
            offsets = np.arange(size.sum()) - np.repeat(ends[at:stop] - size - done, size)
            rows = one.rows[np.repeat(begins[at:stop], size) + offsets]
            yield np.repeat(np.arange(at, stop) // len(one.masks), size), rows
            at = stop
