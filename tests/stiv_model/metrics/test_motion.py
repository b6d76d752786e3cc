import numpy as np
import pytest

from stiv_model.metrics import motion

SIDE = 64


def moving(step: float, frames: int = 10, side: int = SIDE, pixels: int = 20) -> np.ndarray:
    """A red square that moves right by `step` pixels a frame, over a grey as light as the red."""
    video = np.full((frames, side, side, 3), 76, np.uint8)
    for index in range(frames):
        left = side // 8 + round(index * step)
        video[index, side // 3 : side // 3 + pixels, left : left + pixels] = (254, 0, 0)
    return video


def test_flicker_is_the_formula_of_vbench():
    video = np.zeros((3, 4, 4, 3), np.uint8)
    video[1] = 51  # neighbours differ by 51 and by 51
    assert motion.flicker(video) == pytest.approx((255 - 51) / 255)
    assert motion.flicker(np.repeat(video[:1], 2, 0)) == 1


@pytest.mark.parametrize("step", (2.0, 3.0))
def test_what_moves_is_measured_in_shares_of_the_side_per_frame(step):
    assert motion.motion(moving(step)) == pytest.approx(step / SIDE, rel=0.25)


def test_a_still_video_does_not_move_however_it_was_coded_or_its_camera_is_noisy():
    still = np.repeat(moving(2.0)[:1], 10, 0)
    noise = np.random.default_rng(0).normal(0, 2, still.shape)
    noisy = np.clip(still + noise, 0, 255).astype(np.uint8)
    assert motion.motion(still) == 0
    assert motion.is_still(motion.motion(noisy), motion.motion(moving(2.0)))
    assert not motion.is_still(motion.motion(moving(1.0)), motion.motion(moving(2.0)))


def test_dynamics_ask_for_six_pixels_at_256_of_a_quarter_of_the_frames():
    assert motion.dynamics_dis(moving(3.0), 8)  # the limit is 1.5 pixels at 64
    assert not motion.dynamics_dis(moving(1.0), 8)
    brief = np.concatenate([moving(3.0)[:2], np.repeat(moving(3.0)[1:2], 14, 0)])
    assert not motion.dynamics_dis(brief, 8)  # one pair of 16 frames, where four must move


def test_dynamics_take_about_eight_frames_a_second():
    slow = moving(1.0, frames=16, side=128)  # limit 3 pixels: one of four frames moves by 4
    assert not motion.dynamics_dis(slow, 8)
    assert motion.dynamics_dis(slow, 32)


def test_dynamics_of_an_estimator_are_its_own():
    everywhere_five = np.full((SIDE, SIDE, 2), (3, 4), np.float32)
    assert motion.is_dynamic(moving(0.0), 8, lambda before, after: everywhere_five)


@pytest.mark.parametrize("measure", (motion.flicker, motion.motion, lambda video: motion.dynamics_dis(video, 8)))
def test_one_frame_has_no_motion(measure):
    with pytest.raises(ValueError, match="1 frame of a video: motion needs 2"):
        measure(moving(1.0, frames=1))


def test_a_video_too_small_for_optical_flow_is_refused():
    with pytest.raises(ValueError, match="8 x 8 pixels: motion needs 16"):
        motion.motion(np.zeros((2, 8, 8, 3), np.uint8))


def test_what_is_no_video_and_real_clips_that_stand_still_are_refused():
    with pytest.raises(ValueError, match="not float64"):
        motion.flicker(np.zeros((4, 8, 8, 3)))
    with pytest.raises(ValueError, match="fps is 0"):
        motion.dynamics_dis(moving(1.0), 0)
    with pytest.raises(ValueError, match="stand still themselves"):
        motion.is_still(0.0, 0.0)
