"""Which clips are nearly the same, by their video hashes: of those, the best stays and the others name it.

A leader algorithm: clips are taken best first; one that is within so many bits of a clip already kept is its twin,
any other is kept. Neighbours are found by multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming
Space with Multi-Index Hashing", CVPR 2012): hashes within r bits of each other agree, up to r // m flips, in one of m
bands at least, so each band has a table and few buckets of it are looked at. Exact, and the same on every machine.

Cost of 1 million hashes that are no twins, at 24 bits: about a minute of one core and 0.6 GB (docs/curation.md).
"""

from collections.abc import Iterator
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MERITS = ("quality", "width", "height", "seconds")
COLUMNS = ("shot", "video_hash", *MERITS)
"""What of each clip is needed to compare it."""

_LEADERS = 512  # taken at once: among themselves they are compared one by one
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


def twins(clips: pa.Table, bits: int, earlier: pa.Table) -> dict[str, str]:
    """Return the clips that are near-duplicates, each with the clip that is kept instead: the best within reach.

    Best is the higher quality, then the larger picture, then the longer clip, then the first name. What was
    released earlier is better than anything new.

    Args:
        clips: with COLUMNS, none null.
        earlier: with `shot` and `video_hash`, not null.

    Raises:
        ValueError: hashes are of several lengths.
    """
    clips = clips.take(best_first(clips))
    names = earlier["shot"].to_pylist() + clips["shot"].to_pylist()
    hashes = pa.chunked_array([*earlier["video_hash"].chunks, *clips["video_hash"].chunks], pa.binary())
    leaders = lead(matrix(hashes), bits, earlier.num_rows)
    return {names[row]: names[leaders[row]] for row in np.flatnonzero(leaders >= 0).tolist()}


def best_first(clips: pa.Table) -> np.ndarray:
    """Return the rows in the order in which they are kept."""
    quality, width, height, seconds = (clips[name].to_numpy().astype(np.float64) for name in MERITS)
    names = np.array(clips["shot"].to_pylist(), "S")
    return np.lexsort((names, -seconds, -width * height, -quality))


def matrix(hashes: pa.ChunkedArray) -> np.ndarray:
    """Return hashes as uint8 (hashes, bytes).

    Raises:
        ValueError: they are of several lengths, or of no whole number of 8 bytes.
    """
    lengths = pc.unique(pc.binary_length(hashes)).to_pylist() or [32]
    if len(lengths) > 1 or lengths[0] % 8:
        raise ValueError(f"video hashes of {sorted(lengths)} bytes: score all videos, earlier releases too, alike")
    return np.frombuffer(b"".join(hashes.to_pylist()), np.uint8).reshape(-1, lengths[0])


def lead(hashes: np.ndarray, bits: int, num_earlier: int) -> np.ndarray:
    """Return for every hash the first one kept that is within `bits`, or -1 where it is kept itself.

    Args:
        hashes: uint8 (hashes, bytes), those of earlier releases first, then the others best first.
        num_earlier: so many at the start are kept whatever they resemble.
    """
    count = len(hashes)
    words = hashes.view(np.uint64)
    tables = [table(hashes, band) for band in bands(8 * hashes.shape[1], bits, count)]
    leaders = np.full(count, count, np.int64)
    for first, last in (*_blocks(0, num_earlier), *_blocks(num_earlier, count)):
        block = np.arange(first, last)
        block = block[leaders[block] == count]
        if first >= num_earlier:
            _lead_block(words, block, bits, leaders)
            block = block[leaders[block] == count]
        for places, rows in _pairs(tables, block):
            better = block[places]
            open_still = (rows >= max(last, num_earlier)) & (leaders[rows] > better)
            better, rows = better[open_still], rows[open_still]
            near = np.bitwise_count(words[better] ^ words[rows]).sum(axis=1) <= bits
            np.minimum.at(leaders, rows[near], better[near])
    return np.where(leaders == count, -1, leaders)


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


def _blocks(first: int, last: int) -> list[tuple[int, int]]:
    return [(start, min(start + _LEADERS, last)) for start in range(first, last, _LEADERS)]


def _band_values(hashes: np.ndarray, band: Band) -> np.ndarray:
    last = band.first + band.width
    bits = np.unpackbits(hashes[:, band.first // 8 : -(-last // 8)], axis=1)
    bits = bits[:, band.first % 8 :][:, : band.width]
    padded = np.pad(bits, ((0, 0), (32 - band.width, 0)))
    return np.packbits(padded, axis=1).view(">u4").ravel().astype(np.uint32)


def _lead_block(words: np.ndarray, block: np.ndarray, bits: int, leaders: np.ndarray) -> None:
    """Settle a block among itself: what is near a better one that is kept follows it."""
    own = words[block]
    near = np.zeros((len(block), len(block)), np.uint16)
    for word in range(own.shape[1]):
        near += np.bitwise_count(own[:, None, word] ^ own[None, :, word])
    first, second = np.nonzero(np.triu(near <= bits, 1))
    for better, worse in zip(block[first].tolist(), block[second].tolist(), strict=True):
        if leaders[better] == len(leaders):
            leaders[worse] = min(leaders[worse], better)


def _pairs(tables: list[Table], block: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs that may be near: a place in `block`, and a row of the table."""
    for one in tables:
        probes = (one.keys[block][:, None] ^ one.masks[None, :]).ravel()
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
