import numpy as np
import pytest

from tasks.scores.embedding import LENGTH, embedding


def units(count: int, width: int, seed: int = 0) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(count, width))
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_the_embedding_is_the_direction_of_the_mean_of_the_stills():
    features = units(3, 512)
    found = np.frombuffer(embedding(features.astype(np.float32)), "<i2")
    mean = features.mean(axis=0)
    # half a unit of rounding, and float32's error of a number of at most LENGTH
    assert found == pytest.approx(LENGTH * mean / np.linalg.norm(mean), abs=0.5 + LENGTH * 2**-23)


@pytest.mark.parametrize("width", [1, 512, 4096])
def test_products_of_embeddings_stay_within_the_whole_numbers_that_float32_holds(width):
    even = np.full((1, width), width**-0.5)
    for features in (even, units(1, width), np.eye(1, width)):
        found = np.frombuffer(embedding(features), "<i2").astype(np.int64)
        assert np.square(found).sum() <= 2**24


@pytest.mark.parametrize("features", [np.full((1, 8), np.nan), np.zeros((2, 8)), np.eye(1, 8) * [[1.0], [-1.0]]])
def test_features_without_a_direction_are_refused(features):
    with pytest.raises(ValueError, match=r"\bscores\.embedding\b"):
        embedding(features)
