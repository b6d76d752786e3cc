"""The alarms, on real videos of shapes and on what is wrong with these."""

from pathlib import Path

import numpy as np
import pytest

from flows.params import load_params
from tasks.demo import shapes
from tasks.evaluation import alarms, matrix, moving, text_agreement
from tasks.evaluation.card import Alarm
from tasks.evaluation.metrics import Evaluated
from tests.made_evaluated import SETTINGS, changed, frozen, real_videos, shuffled

REAL = list(real_videos(12))


def still_video(entries: list[Evaluated]) -> Alarm:
    found = matrix.dimension(moving.FEATURES[0], moving.SET_METRICS[0], entries, SETTINGS)
    (alarm,) = alarms.still_video([found] if found else [], SETTINGS)
    return alarm


def ignores_the_text(entries: list[Evaluated]) -> Alarm:
    found = matrix.dimension(text_agreement.FEATURES[0], text_agreement.SET_METRICS[0], entries, SETTINGS)
    (alarm,) = alarms.ignores_the_text([found] if found else [], SETTINGS)
    return alarm


def test_still_video_fires_for_frozen_videos_and_for_no_real_ones():
    assert still_video(REAL).state == "quiet"
    alarm = still_video([frozen(entry) for entry in REAL])
    assert (alarm.state, alarm.found) == ("fires", "100% of 12 videos stand still (76% at least), of the real clips 0%")
    assert still_video([frozen(REAL[0]), *REAL[1:]]).state == "quiet"  # one of twelve is no more than chance allows


def test_still_video_is_not_applicable_without_real_clips_or_with_still_ones():
    alarm = still_video([changed(entry, truth=None) for entry in REAL])
    assert (alarm.state, alarm.found) == ("not_applicable", "no real clips to compare with")
    still = [changed(entry, truth=frozen(entry).video) for entry in REAL]
    assert "they stand still themselves" in still_video(still).found
    assert still_video([]).state == "not_applicable"


def test_ignores_the_text_fires_with_shuffled_prompts_and_not_with_the_true_ones():
    assert ignores_the_text(REAL).state == "quiet"
    assert ignores_the_text(shuffled(REAL)).state == "fires"


def test_of_a_given_first_frame_only_the_direction_is_due_to_the_text():
    picture = REAL[0].video[0]  # one start for all, which tells nothing
    given = [changed(entry, image=picture, given_frames=(0,)) for entry in REAL]
    assert ignores_the_text(given).state == "quiet"
    still = [frozen(entry) for entry in given]  # colour and shape are right all the same
    assert ignores_the_text(still).state == "fires"
    assert ignores_the_text([changed(entry, given_frames=(0, 2, 4)) for entry in REAL]).state == "not_applicable"


@pytest.mark.parametrize("look", [shapes.TEXTURED, load_params(Path("params.yaml")).corpus.look])
def test_where_the_given_first_frame_tells_the_direction_nobody_says_that_the_text_is_followed(look):
    """A model that ignores the text, and moves objects to where there is room, is right in every word."""
    given = []
    for number in range(12):
        scene = shapes.scene(7, number, held_out=True, look=look)
        video = shapes.render(scene, 64, 8)
        words = shapes.Combination(scene.colour, scene.shape, scene.direction)._asdict()
        given.append(Evaluated(str(number), video, prompt="", image=video[0], given_frames=(0,), fps=10.0, **words))
    alarm = ignores_the_text(given)
    assert (alarm.state, "tell the directions without the text" in alarm.found) == ("not_applicable", True)
    assert ignores_the_text([changed(entry, image=None, given_frames=()) for entry in given]).state == "quiet"


def test_too_few_videos_or_prompts_tell_nothing_and_nobody_guesses():
    assert "3 videos of 3 different prompts cannot tell" in ignores_the_text(REAL[:3]).found
    alike = [changed(REAL[0], id=str(number)) for number in range(12)]
    assert "12 videos of 1 different prompts cannot tell" in ignores_the_text(alike).found
    unknown = [changed(entry, colour=None, shape=None, direction=None) for entry in REAL]
    assert ignores_the_text(unknown).state == "not_applicable"


def test_p_is_the_share_of_orders_that_agree_as_well():
    assert text_agreement.permutation_p(np.eye(2)) == pytest.approx(0.5, abs=0.05)  # the true order is one of two
    assert text_agreement.permutation_p(np.ones((5, 5))) == 1
    assert text_agreement.permutation_p(np.eye(20)) == 1 / (1 + text_agreement.PERMUTATIONS)
    assert text_agreement.least_p(np.eye(4)) == pytest.approx(1 / 24)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        text_agreement.permutation_p(np.ones((2, 3)))


def test_a_clip_model_is_asked_of_videos_from_text_alone():
    axes = np.eye(3)
    features = text_agreement.by_clip(lambda video: axes[video[:, 0, 0, 0]], lambda prompt: axes[len(prompt)])
    entry = Evaluated("one", np.full((2, 4, 4, 3), 1, np.uint8), prompt="a")
    assert features.applies(entry)
    assert features.measure(entry).tolist() == [0, 1, 0, 0, 1, 0]
    assert not features.applies(changed(entry, given_frames=(0,)))
    assert not features.applies(changed(entry, prompt=None))


def test_motion_of_each_video_is_measured_once_for_all_metrics(monkeypatch):
    entry, calls = real_videos(1)[0], []
    speeds = moving.motion.speeds
    monkeypatch.setattr(moving.motion, "speeds", lambda video: calls.append(len(video)) or speeds(video))
    values = {metric.name: metric.measure(entry) for metric in moving.METRICS if metric.applies(entry)}
    assert values["dynamics_dis"] is True
    assert 0.9 < values["flicker"] < 1
    assert 0.01 < values["motion"] < 0.2
    assert calls == [8]


def test_a_video_of_one_frame_or_unknown_rate_has_no_motion_or_no_dynamics():
    applies = {metric.name: metric.applies for metric in moving.METRICS}
    assert not applies["motion"](changed(REAL[0], video=REAL[0].video[:1]))
    assert not applies["dynamics_dis"](changed(REAL[0], fps=None))
    assert not applies["dynamics_dis"](changed(REAL[0], fps=64.0))  # of 8 frames every eighth is one
    assert applies["dynamics_dis"](changed(REAL[0], fps=56.0))
