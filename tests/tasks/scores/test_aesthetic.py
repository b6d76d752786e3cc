import cv2
import numpy as np
import pytest

from tasks.scores.aesthetic import Estimate, estimate


def test_a_colourful_sharp_picture_scores_above_a_dark_flat_one():
    colourful = np.random.default_rng(0).integers(0, 255, (72, 128, 3), np.uint8)
    assert 10 >= estimate(colourful) > 8
    assert 0 <= estimate(np.full((72, 128, 3), 5, np.uint8)) < 1


def test_a_real_frame_loses_by_blur_by_darkness_and_without_colour(real_frames, still):
    for frame in real_frames:
        picture = still(frame)
        grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        spoilt = (cv2.GaussianBlur(picture, (0, 0), 4), cv2.convertScaleAbs(picture, alpha=0.4), grey)
        assert all(estimate(worse) < estimate(picture) for worse in spoilt)


def test_a_shot_has_the_mean_of_its_pictures(real_frames):
    pictures = real_frames[:2]
    assert Estimate().score(pictures) == pytest.approx(np.mean([estimate(picture) for picture in pictures]))
