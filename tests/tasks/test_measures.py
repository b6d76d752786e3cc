import numpy as np
import pytest

from tasks import measures


def texture(seed: int = 0, height: int = 144, width: int = 256) -> np.ndarray:
    """A smooth grey texture."""
    coarse = np.random.default_rng(seed).uniform(40, 215, (height // 8, width // 8))
    picture = np.kron(coarse, np.ones((8, 8)))
    for axis in (0, 1):
        for _ in range(4):
            picture = (picture + np.roll(picture, 1, axis) + np.roll(picture, -1, axis)) / 3
    return picture.astype(np.uint8)


@pytest.mark.parametrize(("axis", "shift"), [(1, 3), (1, -3), (0, 2), (0, -2)])
def test_motion_has_amount_and_sign_of_a_pan(axis, shift):
    before = texture()
    found = measures.motion(measures.vectors(before, np.roll(before, shift, axis)))
    along, across = (found.x, found.y) if axis == 1 else (found.y, found.x)
    assert along == pytest.approx(100 * shift / before.shape[axis], rel=0.35)
    assert abs(across) < abs(along) / 3
    assert found.amount > 0.5


def test_a_small_thing_over_a_still_background_counts_as_motion():
    before, after = texture(), texture()
    before[60:84, 60:84], after[60:84, 64:88] = 250, 250
    found = measures.motion(measures.vectors(before, after))
    assert found.amount > 0.2
    assert found.x > 0.2


def test_a_still_picture_has_no_motion():
    assert measures.motion(measures.vectors(texture(), texture())).amount < 0.01


def test_flicker_and_noise_are_less_consistent_than_a_pan():
    before = texture()
    noise = np.random.default_rng(1).integers(0, 255, before.shape, np.uint8)

    def consistency(one: np.ndarray, other: np.ndarray) -> float:
        return measures.temporal_consistency(one, other, measures.vectors(one, other))

    pan = consistency(before, np.roll(before, 2, 1))
    assert pan > 0.9
    assert consistency(before, (before * 0.4).astype(np.uint8)) < 0.6
    assert consistency(noise, np.flipud(noise).copy()) < 0.6
    assert consistency(before, before) == 1.0


def test_a_blurred_picture_is_less_clear():
    sharp = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    blurred = ((sharp.astype(int) + np.roll(sharp, 1, 0) + np.roll(sharp, 1, 1)) // 3).astype(np.uint8)
    assert measures.clarity(sharp) > measures.clarity(blurred) > measures.clarity(np.full((64, 64), 9, np.uint8)) == 0


def test_brightness_and_saturation_run_from_zero_to_one():
    white, black = np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8, 3), np.uint8)
    red = np.broadcast_to(np.array([0, 0, 255], np.uint8), (8, 8, 3)).copy()
    assert (measures.brightness(white), measures.brightness(black)) == (1, 0)
    assert (measures.saturation(red), measures.saturation(white)) == (1, 0)
