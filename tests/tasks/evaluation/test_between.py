import numpy as np
import pytest

from tasks.evaluation import between
from tasks.evaluation.metrics import Evaluated
from tests.made_evaluated import changed, real_videos

FIGURES = {metric.name: metric for metric in between.METRICS}


def found(entry: Evaluated) -> dict[str, float]:
    return {name: round(metric.measure(entry), 2) for name, metric in FIGURES.items() if metric.applies(entry)}


@pytest.mark.parametrize(
    ("given", "made"),
    [((0, 2, 4, 6), [1, 3, 5]), ((0, 1, 2, 3), [4, 5, 6, 7]), ((0, 7), [1, 2, 3, 4, 5, 6])],
    ids=["upsampling", "prediction", "interpolation"],
)
def test_frames_between_given_ones_count_or_those_after_the_last(given, made):
    assert between.made_places(given, 8) == made


def test_repeated_and_blended_frames_are_those_of_the_given_neighbours():
    video = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) * np.full((1, 1, 1, 3), 40, np.uint8)
    assert between.repeated(video, (0, 4))[:, 0, 0, 0].tolist() == [0, 0, 0, 0, 160]
    video[1:4] = 255  # what was made has no part in either
    assert between.blended(video, (0, 4))[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160]
    assert between.blended(video, (0, 1))[3:, 0, 0, 0].tolist() == [255, 255]  # no neighbour after


def test_the_true_frames_are_nearest_and_blended_ones_nearer_than_repeated_ones():
    entry = changed(real_videos(1)[0], given_frames=(0, 2, 4, 6))
    figures = found(entry)
    assert figures["made_psnr"] == figures["given_psnr"] == 100.0  # dB, identical
    assert figures["repeated_psnr"] < figures["blended_psnr"] < 100.0
    made = entry.video.copy()
    made[1::2] = between.repeated(entry.video, entry.given_frames)[1::2]
    assert found(changed(entry, video=made))["made_psnr"] == figures["repeated_psnr"]


def test_videos_of_one_given_frame_or_without_truth_have_no_such_figure():
    entry = real_videos(1, is_given=True)[0]
    assert found(entry) == found(changed(entry, given_frames=(0, 2), truth=None)) == {}
