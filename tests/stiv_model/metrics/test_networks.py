"""I3D and LPIPS against published figures, and the way their weights take."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from stiv_model.metrics import i3d, lpips, weights

pytestmark = pytest.mark.usefixtures("needs_eval")

# JunyaoHu/common_metrics_on_video_quality: zeros against ones, clips of 64 x 64 pixels
FVD_OF_30_FRAMES, FVD_OF_10_FRAMES, LPIPS = 151.3925, 569.77, 0.8140


@pytest.fixture(scope="module")
def network():
    return i3d.load()


def logits(network: i3d.I3D, brightness: int, frames: int) -> np.ndarray:
    video = np.full((frames, 64, 64, 3), brightness, np.uint8)
    with torch.inference_mode():
        return network(i3d.network_input(video))[0].double().numpy()


def distance_of_constants(network: i3d.I3D, frames: int) -> float:
    """Of sets without a covariance, whose distance is that of their means: two equal clips on either side."""
    from stiv_model.metrics import frechet

    sides = (np.stack([logits(network, brightness, frames)] * 2) for brightness in (0, 255))
    return frechet.frechet_distance(*sides)


def test_fvd_of_zeros_and_ones_of_10_frames_is_the_published_one(network):
    assert distance_of_constants(network, 10) == pytest.approx(FVD_OF_10_FRAMES, abs=1)


@pytest.mark.long
def test_fvd_of_zeros_and_ones_of_30_frames_is_the_published_one(network):
    assert distance_of_constants(network, 30) == pytest.approx(FVD_OF_30_FRAMES, abs=0.01)


def test_i3d_needs_nine_frames(network):
    with pytest.raises(ValueError, match="8 frames, I3D needs 9"):
        network(i3d.network_input(np.zeros((8, 64, 64, 3), np.uint8)))


def test_what_i3d_sees_is_scaled_and_not_smoothed():
    checkered = np.indices((448, 448)).sum(axis=0) % 2 * 255
    video = np.repeat(checkered[None, ..., None], 3, axis=-1).astype(np.uint8)
    seen = i3d.network_input(video)
    assert seen.shape == (1, 3, 1, 224, 224)
    assert (float(i3d.network_input(video * 0).min()), float(i3d.network_input(video * 0 + 255).max())) == (-1, 1)
    # bilinear at half of the size is the mean of four pixels; at an eighth, without smoothing, it still is of four
    assert float(seen.abs().max()) == pytest.approx(0, abs=1e-6)


def test_lpips_of_zeros_and_ones_is_the_published_one():
    network, zeros = lpips.load(), np.zeros((2, 64, 64, 3), np.uint8)
    assert lpips.distance(network, zeros, zeros + 255) == pytest.approx(LPIPS, abs=0.001)
    assert lpips.distance(network, zeros, zeros) == 0


def test_lpips_refuses_other_shapes_and_small_frames():
    network = lpips.Lpips()
    for video, truth in (((2, 64, 64, 3), (3, 64, 64, 3)), ((2, 16, 16, 3), (2, 16, 16, 3))):
        with pytest.raises(ValueError, match="32 pixels"):
            lpips.distance(network, np.zeros(video, np.uint8), np.zeros(truth, np.uint8))


# ---------------------------------------------------------------------------------------------- weights


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/reached", "w"))


@pytest.mark.parametrize("held", [Evil(), {"a": Evil()}, json.JSONDecoder])
def test_a_pickle_of_anything_but_arrays_is_refused_unrun(tmp_path, held):
    path = tmp_path / "weights.ckpt"
    path.write_bytes(pickle.dumps(held))
    with pytest.raises(ValueError, match="asks for"):
        weights.read_arrays(path)


def test_a_pickle_of_arrays_is_read(tmp_path):
    path = tmp_path / "weights.ckpt"
    path.write_bytes(pickle.dumps({"a": {"b": np.arange(3.0)}}))
    assert weights.read_arrays(path)["a"]["b"].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="no pickle of numpy arrays"):
        weights.read_arrays(path)


def test_weights_are_converted_once_by_several_at_once_and_mended(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: weights.load(lpips.WEIGHTS, tmp_path), range(2)))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    assert weights.load(lpips.WEIGHTS, tmp_path).keys() == found[0].keys()
    assert [path.read_bytes() == whole for path in tmp_path.iterdir()] == [True]


def test_other_weights_than_the_pinned_are_refused(tmp_path):
    other = lpips.WEIGHTS._replace(source_sha256="0" * 64)
    with pytest.raises(ValueError, match="0000"):
        weights.load(other, tmp_path)
    changed = lpips.WEIGHTS._replace(convert=lambda held: {"a": held["AlexNet_0"]["Conv_0"]["bias"]})
    with pytest.raises(ValueError, match="converted"):
        weights.load(changed, tmp_path)
    with pytest.raises(weights.NotInstalledError, match="there is no package"):
        weights.load(lpips.WEIGHTS._replace(source="package:no_such_package/weights"), tmp_path)
    assert list(tmp_path.iterdir()) == []
