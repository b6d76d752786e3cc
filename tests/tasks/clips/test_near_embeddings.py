"""Embeddings of great similarity: exact, on the limit and beside it, and whatever the order of the sums."""

from collections.abc import Iterator
from math import sqrt

import numpy as np
import pyarrow as pa
import pytest

from tasks.clips.near_embeddings import NearEmbeddings, check_makers, matrix
from tasks.scores.embedding import embedding

CROWD = 40


@pytest.fixture(scope="module")
def crowd() -> np.ndarray:
    """Embeddings of 512 numbers that are all rather alike, as those of pictures are."""
    random = np.random.default_rng(0)
    features = random.normal(size=512) + random.normal(scale=0.3, size=(CROWD, 512))
    return np.stack([np.frombuffer(embedding(row[None]), "<i2") for row in features])


def found(vectors: np.ndarray, similarity: float, at_once: int) -> set[tuple[int, int]]:
    """Return all pairs, the smaller number first, asking for so many rows at a time."""
    near, pairs = NearEmbeddings(vectors, similarity), set[tuple[int, int]]()
    for first in range(0, len(vectors), at_once):
        for own, others in near.pairs(
            np.arange(first, min(len(vectors), first + at_once)), np.ones(len(vectors), bool)
        ):
            pairs |= {(a, b) for a, b in zip(own.tolist(), others.tolist(), strict=True) if a < b}
    return pairs


def test_each_pair_is_found_at_its_own_similarity_whatever_the_order_of_the_sums(crowd):
    """In float32 arithmetic the last bits of a sum depend on its order, and with them what is at a limit."""
    exact = crowd.astype(np.int64) @ crowd.astype(np.int64).T
    mixed = crowd[:, np.random.default_rng(1).permutation(512)]
    for second in range(1, CROWD):
        # a hair less than the pair's own cosine, of which the root is rounded
        limit = exact[0, second] / sqrt(exact[0, 0] * exact[second, second]) * (1 - 1e-15)
        once = found(crowd, limit, CROWD)
        assert (0, second) in once
        assert once == found(mixed, limit, 7)
        assert (0, second) not in found(crowd, limit * (1 + 1e-12), CROWD)


def test_the_limit_itself_is_near():
    vectors = np.array([[2, 0, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], np.int16)  # cosines 1/2, and 1 / sqrt(5)
    assert found(vectors, 0.5, 3) == {(0, 1), (1, 2)}
    assert NearEmbeddings(vectors, 0.5).among(np.arange(2)).all()


def test_an_embedding_is_near_itself_and_not_its_opposite(crowd):
    vectors = np.stack([crowd[0], -crowd[0], crowd[0]])
    assert found(vectors, 1.0, 3) == {(0, 2)}


def test_only_what_is_open_is_found(crowd):
    vectors = crowd[[0, 0, 0]]
    ((own, others),) = NearEmbeddings(vectors, 1.0).pairs(np.array([0]), np.array([False, False, True]))
    assert (own.tolist(), others.tolist()) == ([0], [2])


def pieces(values: list[bytes]) -> Iterator[tuple[np.ndarray, pa.Array]]:
    half = len(values) // 2  # the second half first, and of a longer array
    whole = pa.array([b"before", *values, b"after"], pa.binary())
    for first, last in ((half, len(values)), (0, half)):
        yield np.arange(first, last), whole.slice(1 + first, last - first)


def test_a_column_of_several_pieces_becomes_one_matrix(crowd):
    assert (matrix(pieces([row.tobytes() for row in crowd]), CROWD) == crowd).all()
    assert len(matrix(pieces([]), 0)) == 0


def test_embeddings_of_two_encoders_are_never_compared():
    with pytest.raises(ValueError, match=r"\b2 encoders \(aa, bb\).*clips\.duplicate_similarity: null"):
        check_makers(["bb", "aa"])


def test_embeddings_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\[4, 6\] bytes"):
        matrix(pieces([bytes(4), bytes(6)]), 2)
