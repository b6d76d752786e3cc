import itertools

import cv2
import numpy as np
import pytest

from tasks.decoding import decode, measures
from tasks.storage import tables

HEIGHT, WIDTH = 144, 256


def texture(seed: int = 0) -> np.ndarray:
    """Grey blobs, uint8 (144, 256)."""
    coarse = np.random.default_rng(seed).uniform(20, 235, (HEIGHT // 6, WIDTH // 6)).astype(np.float32)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def edges() -> np.ndarray:
    """The same blobs in black and white, with sharp edges."""
    return ((texture() > 128) * 140 + 50).astype(np.uint8)


def picture(grey: np.ndarray, index: int = 0) -> decode.Picture:
    bgr = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    return decode.Picture(index, index, 1, bgr, cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV), grey, grey, is_measured=True)


def scores(greys: list[np.ndarray]) -> dict[str, float | None]:
    """The scores of a shot of these frames, every pair of them measured."""
    shot = [picture(grey, index) for index, grey in enumerate(greys)]
    glances = [measures.glance(before, after) for before, after in zip([None, *shot[:-1]], shot, strict=True)]
    return measures.summarise(glances, [measures.measure(*pair) for pair in itertools.pairwise(shot)])


def test_every_cheap_score_of_the_table_has_a_value():
    found = scores([texture()] * 4)
    names = tables.SHOTS.names
    assert list(found) and set(found) == set(names[names.index("motion") :])
    assert all(isinstance(value, float) for value in found.values())


def test_what_was_not_measured_is_null():
    one = measures.glance(None, picture(texture()))
    assert {name for name, value in measures.summarise([one], []).items() if value is not None} == {"brightness"}


def test_the_more_blur_the_less_clarity():
    sharp = edges()
    found = [measures.clarity(sharp if not sigma else cv2.GaussianBlur(sharp, (0, 0), sigma)) for sigma in (0, 1, 2, 4)]
    assert np.all(np.diff(found) < 0)
    assert 1 >= found[0] > found[-1] >= 0
    assert measures.clarity(np.full((64, 64), 9, np.uint8)) == 0


def test_contrast_and_noise_change_clarity_less_than_blur_does():
    sharp, blurred = edges(), cv2.GaussianBlur(edges(), (0, 0), 2)
    faint = cv2.convertScaleAbs(sharp, alpha=0.25, beta=90)
    noisy = cv2.add(blurred, np.random.default_rng(0).normal(0, 1, sharp.shape), dtype=cv2.CV_8U)
    blur = measures.clarity(sharp) - measures.clarity(blurred)
    assert abs(measures.clarity(faint) - measures.clarity(sharp)) < blur / 3
    assert abs(measures.clarity(noisy) - measures.clarity(blurred)) < blur / 3


def test_flashes_and_noise_are_less_consistent_than_a_pan():
    before, noise = texture(), np.random.default_rng(1).integers(0, 255, (2, HEIGHT, WIDTH), np.uint8)

    def consistency(one: np.ndarray, other: np.ndarray) -> float:
        return measures.measure(picture(one), picture(other)).temporal_consistency

    pan = consistency(before, np.roll(before, 2, 1))
    assert pan > 0.9
    assert consistency(before, (before * 0.4).astype(np.uint8)) < 0.6
    assert consistency(*noise) < 0.6
    assert consistency(before, before) == 1.0


def test_noise_that_changes_lowers_temporal_consistency_step_by_step():
    random = np.random.default_rng(0)
    noisy = [
        [cv2.add(texture(), random.normal(0, sigma, (HEIGHT, WIDTH)), dtype=cv2.CV_8U) for _ in range(3)]
        for sigma in (0, 4, 8, 16)
    ]
    assert np.all(np.diff([scores(shot)["temporal_consistency"] for shot in noisy]) < 0)


def test_the_more_brightness_goes_to_and_fro_the_more_flicker():
    found = [measures.flicker(0.5 + depth * (np.arange(48) % 2 - 0.5)) for depth in (0, 0.1, 0.5, 1.0)]
    assert found == pytest.approx([0, 0.1, 0.5, 1.0])


def test_a_lamp_on_mains_flickers_and_a_fade_does_not():
    """100 light pulses per second, seen 30 times per second, come back every third frame."""
    lamp = 0.5 + 0.1 * np.sin(2 * np.pi * 100 * np.arange(60) / 30)
    assert measures.flicker(lamp) > 0.05
    assert measures.flicker(np.linspace(1, 0, 60)) == pytest.approx(0, abs=1e-12)
    assert measures.flicker(np.full(2, 0.5)) is None


def test_the_more_frames_repeat_the_more_is_frozen():
    moving = [np.roll(texture(), 3 * index, 1) for index in range(13)]
    repeated = [moving[index - index % 2] for index in range(13)]
    assert [scores(shot)["frozen"] for shot in (moving, repeated, [moving[0]] * 13)] == [0, 0.5, 1]


def test_moving_lips_in_a_still_picture_are_not_frozen():
    one, other = texture(), texture()
    other[90:98, 120:136] = 255 - other[90:98, 120:136]
    assert scores([one, other, one])["frozen"] == 0


def test_brightness_and_saturation_run_from_zero_to_one():
    white, black = np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8, 3), np.uint8)
    red = np.full((8, 8, 3), (0, 0, 255), np.uint8)
    assert (measures.brightness(white), measures.brightness(black)) == (1, 0)
    assert [measures.saturation(one) for one in (red, white)] == [1, 0]


def test_no_size_of_a_picture_makes_its_saturation_more_than_one():
    """OpenCV's mean of n times 255 is 255 times n times 1 / n, rounded twice."""
    red = [np.full((8, 8 * width, 3), (0, 0, 255), np.uint8) for width in range(1, 200)]
    assert max(map(measures.saturation, red)) == 1


def test_frames_shown_twice_are_frozen_although_the_encoder_changes_them_a_little():
    moving = [30.0, 25.0, 40.0, 35.0, 28.0, 33.0]
    shown_twice = [change for pair in zip([4.0, 3.0, 4.0, 3.0, 4.0, 3.0], moving, strict=True) for change in pair]
    assert measures.frozen(moving) == 0
    assert measures.frozen(shown_twice) == pytest.approx(5 / 12)  # before the first there is nothing to compare with
    assert measures.frozen([1.25] * 12) == pytest.approx(0.5)
    assert measures.frozen([5.0] * 6 + moving) == 0, "what stands before it moves does not repeat"


def test_noise_in_the_dark_is_no_colour_and_the_more_colour_the_more_saturation():
    random = np.random.default_rng(0)
    dark = random.integers(0, 8, (144, 256, 3)).astype(np.uint8)
    reds = [np.full((16, 16, 3), (120 - strength, 120 - strength, 120), np.uint8) for strength in (0, 40, 80, 120)]
    assert measures.saturation(dark) < 0.05
    assert np.all(np.diff([measures.saturation(red) for red in reds]) > 0)
