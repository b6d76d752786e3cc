from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import pytest

from tasks.scores.quality import blockiness, blur, exposure, noise, quality

Change = Callable[[np.ndarray, float], np.ndarray]


def blurred(picture: np.ndarray, pixels: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), pixels) if pixels else picture


def noisy(picture: np.ndarray, deviation: float) -> np.ndarray:
    added = np.random.default_rng(0).normal(0, deviation, picture.shape) if deviation else 0
    return (picture + added).clip(0, 255).astype(np.uint8)


def lit(picture: np.ndarray, factor: float) -> np.ndarray:
    return cv2.convertScaleAbs(picture, alpha=factor)


def through_jpeg(picture: np.ndarray, setting: float) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(setting)])[1], cv2.IMREAD_COLOR)


def made() -> np.ndarray:
    """A picture of 144 x 256 with edges of all strengths, smooth areas, and the whole range of brightness."""
    picture = np.broadcast_to(np.linspace(10, 245, 256)[None, :, None], (144, 256, 3)).astype(np.uint8).copy()
    generator = np.random.default_rng(3)
    for _ in range(30):
        x, y, radius = (int(generator.integers(low, high)) for low, high in ((0, 256), (0, 144), (6, 24)))
        cv2.circle(picture, (x, y), radius, generator.integers(20, 235, 3).tolist(), -1, cv2.LINE_AA)
    return picture


@pytest.mark.parametrize(
    ("change", "ever_worse"),
    [
        (blurred, [0, 1, 2, 4]),
        (noisy, [0, 6, 12, 24]),
        (lit, [1, 0.6, 0.3, 0.1]),  # under-exposed
        (lit, [1, 1.8, 3, 6]),  # over-exposed
        (through_jpeg, [90, 40, 20, 8]),
    ],
)
def test_quality_falls_as_a_picture_is_spoilt(real_frames, still, change: Change, ever_worse: list[float]):
    for picture in (made(), still(real_frames[0])):
        scores = [quality(change(picture, amount)) for amount in ever_worse]
        assert all(worse < better for better, worse in pairwise(scores)), scores


def test_quality_falls_with_the_bitrate(real_frames, through_h264, still):
    scores = [
        np.mean([quality(still(through_h264(frame, factor))) for frame in real_frames]) for factor in (20, 32, 40, 46)
    ]
    assert scores == sorted(scores, reverse=True)


def test_black_bars_do_not_change_quality(real_frames, still):
    picture = still(real_frames[0])
    framed = cv2.copyMakeBorder(picture, 24, 24, 0, 0, cv2.BORDER_CONSTANT)
    assert quality(framed) == pytest.approx(quality(picture), rel=0.02)


def test_blur_is_the_same_at_twice_the_size(real_frames, twice_the_size):
    grey = cv2.cvtColor(real_frames[0], cv2.COLOR_BGR2GRAY)
    assert blur(twice_the_size(grey), 0) == pytest.approx(blur(grey, 0), rel=0.05)


@pytest.mark.parametrize("deviation", [4, 8, 16])
def test_noise_is_measured_in_grey_levels(deviation):
    flat = np.full((144, 256), 120, np.uint8)
    # the tenth of 576 patches with the least: each mean is of 64 values, so some per cent below the mean of all
    assert noise(noisy(flat, deviation)) == pytest.approx(deviation, rel=0.2)


@pytest.mark.parametrize("place", [0, 3])
def test_block_edges_count_wherever_the_grid_lies_and_edges_of_the_scene_do_not(place):
    scene = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (144, 256), np.uint8), (0, 0), 4)
    steps = np.random.default_rng(1).integers(-6, 7, (19, 33)).astype(np.int16)
    grid = np.kron(steps, np.ones((8, 8), np.int16))[place:, place:][:144, :256]
    blocks = (scene[: grid.shape[0], : grid.shape[1]] + grid).clip(0, 255).astype(np.uint8)
    assert blockiness(blocks) > 2
    scene[:, 128:] = 255 - scene[:, 128:]
    assert blockiness(scene) < 0.8


def test_a_full_range_without_losses_is_well_exposed():
    assert exposure(np.broadcast_to(np.linspace(20, 235, 256), (144, 256)).astype(np.uint8)) == 1


@pytest.mark.parametrize("shape", [(144, 256, 3), (4, 256, 3), (256, 6, 3), (1, 1, 3)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_plain_picture_of_any_shape_has_quality_zero(shape, level):
    assert quality(np.full(shape, level, np.uint8)) == 0
