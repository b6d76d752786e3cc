"""Which clips are nearly the same, by their video hashes and embeddings: the best stays, the others name it.

A leader algorithm: clips come best first; one that is near a leader, by either measure, is its near-duplicate, any
other becomes a leader itself and is kept. How the clips near others are found: tasks/clips/near_hashes.py and
tasks/clips/near_embeddings.py. Exact, and the same on every machine.

Cost of 1 million hashes that are no near-duplicates, at 24 bits: under a minute of one core; of embeddings
far more (docs/curation.md).
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from tasks.clips import near_embeddings, near_hashes
from tasks.clips.near_embeddings import NearEmbeddings
from tasks.clips.near_hashes import NearHashes

MERITS = ("quality", "width", "height", "seconds")
"""Columns by which one of several near-duplicates is the best."""

_BLOCK_CLIPS = 512  # looked at together: among themselves they are compared one by one


class Near(Protocol):
    """One measure of which clips are near each other; a clip is a row of one table."""

    def among(self, rows: np.ndarray) -> np.ndarray:
        """Return which of these are near each other: bool (rows, rows)."""

    def pairs(self, rows: np.ndarray, is_open: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield pairs that are near, as two arrays: one of `rows`, and one of the whole table that is open."""


def find_duplicates(clips: pa.Table, bits: int | None, similarity: float | None, earlier: pa.Table) -> dict[str, str]:
    """Return the clips that are near-duplicates, each with the clip that is kept instead: the best that is near it.

    Best is the higher quality, then the larger picture, then the longer clip, then the first name. What was
    released earlier is better than anything new.

    Args:
        clips: columns `clip`, MERITS, and those compared (`video_hash`, or `embedding` and `embedder`); none null.
        bits: video hashes that differ in at most so many bits are near; None compares none.
        similarity: embeddings of at least this cosine, 0 to 1, are near; None compares none.
        earlier: clips of earlier releases: columns `clip` and those compared; none null.

    Raises:
        ValueError: hashes are of several lengths, or embeddings of several encoders.
    """
    num_earlier = earlier.num_rows
    order = np.concatenate([np.arange(num_earlier), num_earlier + best_first(clips)])

    def joined(name: str) -> pa.ChunkedArray:
        return pa.chunked_array([*earlier[name].chunks, *clips[name].chunks], clips.schema.field(name).type)

    measures: list[Near] = []
    if bits is not None:
        measures.append(NearHashes(near_hashes.matrix(joined("video_hash"))[order], bits))
    if similarity is not None:
        vectors = near_embeddings.matrix(joined("embedding"), joined("embedder"))
        measures.append(NearEmbeddings(vectors[order], similarity))
    leaders = find_leaders(measures, len(order), num_earlier)
    names = joined("clip").take(order).to_pylist()
    return {names[row]: names[leaders[row]] for row in np.flatnonzero(leaders >= 0).tolist()}


def best_first(clips: pa.Table) -> np.ndarray:
    """Return the numbers of the rows, the best first."""
    quality, width, height, seconds = (clips[name].to_numpy().astype(np.float64) for name in MERITS)
    names = np.array(clips["clip"].to_pylist(), "S")
    return np.lexsort((names, -seconds, -width * height, -quality))


def find_leaders(measures: Sequence[Near], count: int, num_earlier: int) -> np.ndarray:
    """Return for every clip the number of the first leader near it by any measure, or -1 where it is one itself.

    Args:
        measures: of `count` clips, those of earlier releases first, then the others best first; one at least.
        num_earlier: so many at the start are leaders whatever they resemble.
    """
    leaders = np.full(count, count, np.int64)
    for first, last in (*_blocks(0, num_earlier), *_blocks(num_earlier, count)):
        block = np.arange(first, last)
        block = block[leaders[block] == count]
        if first >= num_earlier:
            _find_leaders_within(measures, block, leaders)
            block = block[leaders[block] == count]
        is_open = leaders == count  # a leader found in an earlier block is better than any of this one
        is_open[: max(last, num_earlier)] = False
        for measure in measures:
            for better, rows in measure.pairs(block, is_open):
                np.minimum.at(leaders, rows, better)
    return np.where(leaders == count, -1, leaders)


def _blocks(first: int, last: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK_CLIPS, last)) for start in range(first, last, _BLOCK_CLIPS)]


def _find_leaders_within(measures: Sequence[Near], block: np.ndarray, leaders: np.ndarray) -> None:
    """Find leaders within a block: a clip that is near a better one, which is a leader, follows it."""
    near = np.logical_or.reduce([measure.among(block) for measure in measures])
    first, second = np.nonzero(np.triu(near, 1))
    for better, worse in zip(block[first].tolist(), block[second].tolist(), strict=True):
        if leaders[better] == len(leaders):
            leaders[worse] = min(leaders[worse], better)
