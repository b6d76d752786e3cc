"""Which clips have embeddings of at least so great a similarity: products of all with all, in blocks.

Every number in between is a whole one below 2**24 (tasks/scores/embedding.py), so float32 products are exact in any
order, and the answer is the same on every machine, with any number of threads. Cost and memory: docs/curation.md.
"""

import math
from collections.abc import Collection, Iterable, Iterator

import numpy as np
import pyarrow as pa

from tasks.clips.byte_rows import gather

_ROWS = 8192  # compared with a block at once: with 512 of them, 16 MB of products
_MOST = 2**24  # up to where float32 holds every whole number


class NearEmbeddings:
    """The pairs of embeddings whose cosine is at least `similarity`.

    Args:
        vectors: int16 (embeddings, width).
    """

    def __init__(self, vectors: np.ndarray, similarity: float):
        self._vectors, self._similarity = vectors, similarity
        blocks = (vectors[first : first + _ROWS] for first in range(0, len(vectors), _ROWS))
        squares = [np.square(block, dtype=np.float64).sum(axis=1) for block in blocks]
        self._squares = np.concatenate([np.zeros(0), *squares])
        assert self._squares.max(initial=0) <= _MOST, f"an embedding of square {self._squares.max()}"

    def among(self, rows: np.ndarray) -> np.ndarray:
        """Return which of these embeddings are near each other: bool (rows, rows)."""
        own, squares = self._vectors[rows].astype(np.float32), self._squares[rows]
        return self._is_near(own @ own.T, squares[:, None] * squares[None, :])

    def pairs(self, rows: np.ndarray, is_open: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield pairs that are near, as two arrays: one of `rows`, and one of all embeddings that is open."""
        if not len(rows):
            return
        own, open_rows = self._vectors[rows].astype(np.float32), np.flatnonzero(is_open)
        for first in range(0, len(open_rows), _ROWS):
            others = open_rows[first : first + _ROWS]
            products = own @ self._vectors[others].astype(np.float32).T
            # a little less than any pair that is near can have: few are left to be looked at closely
            lengths = math.sqrt(self._squares[rows].min() * self._squares[others].min())
            near, other = np.nonzero(products >= self._similarity * lengths - 2)
            squares = self._squares[rows[near]] * self._squares[others[other]]
            is_near = self._is_near(products[near, other], squares)
            yield rows[near[is_near]], others[other[is_near]]

    def _is_near(self, products: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Return whether product / sqrt(squares) is large enough, without a root, which need not be exact."""
        exact = products.astype(np.float64)  # its square, and `squares`, are below 2**48: float64 holds them
        return (exact > 0) & (np.square(exact) >= self._similarity * self._similarity * squares)


def matrix(pieces: Iterable[tuple[np.ndarray, pa.Array]], count: int) -> np.ndarray:
    """Return embeddings as int16 (count, width).

    Args:
        pieces: rows of the matrix, int64 (n,), and the embeddings that belong there, n values none of which is null.

    Raises:
        ValueError: they have several widths.
    """
    vectors, lengths = gather(pieces, count)
    if len(lengths) > 1 or any(length % 2 for length in lengths):
        raise ValueError(f"embeddings of {sorted(lengths)} bytes by one encoder: a table is damaged; score it again")
    return vectors.view("<i2") if lengths else np.zeros((count, 1), "<i2")


def check_makers(makers: Collection[str]) -> None:
    """Check that all embeddings were made by one encoder.

    Raises:
        ValueError: there are several.
    """
    if len(makers) > 1:
        raise ValueError(
            f"embeddings by {len(makers)} encoders ({', '.join(sorted(makers))}) do not compare: score earlier "
            "releases with the encoder of scores.embedding too, leave them out of clips.earlier_releases, or set "
            "clips.duplicate_similarity: null"
        )
