import hashlib

import numpy as np
import pytest

from stiv_model.metrics.flow import RaftSmall
from tests.made_networks import write_flow_network


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("flow") / "raft.pt"
    return path, write_flow_network(path)


def blob(x: int, height: int, width: int) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[height // 2 - 4 : height // 2 + 4, x - 4 : x + 4] = 255
    return picture


@pytest.mark.parametrize(("height", "width"), ((64, 64), (130, 200), (60, 100)))
def test_vectors_are_in_pixels_of_the_frames_whatever_size_the_network_takes(network, height, width):
    vectors = RaftSmall(*network, "cpu").vectors(blob(20, height, width), blob(26, height, width))
    assert vectors.shape == (height, width, 2) and vectors.dtype == np.float32
    assert vectors[..., 0] == pytest.approx(np.full((height, width), 6.0), abs=0.3)
    assert vectors[..., 1] == pytest.approx(np.zeros((height, width)), abs=0.1)


def test_another_file_than_the_one_that_is_meant_is_refused(network, tmp_path):
    path, sha256 = network
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        RaftSmall(tmp_path / "none.pt", sha256, "cpu")
    with pytest.raises(ValueError, match=rf"sha256 is {'0' * 64}, but .* has {sha256}"):
        RaftSmall(path, "0" * 64, "cpu")


def test_a_file_of_another_kind_or_network_is_refused_in_one_line(tmp_path):
    coarse = write_flow_network(tmp_path / "coarse.pt", is_coarse=True)
    with pytest.raises(ValueError, match=r"no such network \(it gives \(1, 2, 16, 16\), not \(1, 2, 128, 128\)\)"):
        RaftSmall(tmp_path / "coarse.pt", coarse, "cpu")
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(ValueError, match="no such network"):
        RaftSmall(tmp_path / "text.pt", hashlib.sha256(b"no network").hexdigest(), "cpu")
