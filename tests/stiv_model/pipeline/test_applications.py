"""Methods that take several calls: which frames are given to each, and how many come out."""

import numpy as np
import pytest

from stiv_model.latents.order import draw_seed
from stiv_model.pipeline import continuation
from stiv_model.pipeline.interpolation import strides_of, windows
from stiv_model.pipeline.one_video import make_video
from tests.stiv_model.pipeline.test_pipeline import FRAMES, PIXELS

CALL = {"num_inference_steps": 1, "guidance_scale": 1.0, "untrained": True}


def noise(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, PIXELS, PIXELS, 3), np.uint8)


@pytest.mark.parametrize(
    ("frames", "window", "starts"), [(2, 4, [0]), (5, 4, [0, 1, 2, 3]), (5, 10, [0]), (9, 10, [0, 4]), (7, 10, [0, 2])]
)
def test_windows_cover_all_given_frames_and_share_the_one_where_they_meet(frames, window, starts):
    assert [one.first for one in windows(frames, window)] == starts
    assert all(one.given == window // 2 for one in windows(frames, window))


def test_given_frames_stay_where_they_were_and_the_last_one_is_dropped_or_kept(pipe):
    made = pipe.interpolate(noise(3), "a", **CALL)
    kept = pipe.interpolate(noise(3), "a", keep_last=True, **CALL)
    assert len(made) == 5 and len(kept) == 6 and np.array_equal(kept[:5], made)
    other = pipe.interpolate(noise(3), "a", seed=1, **CALL)
    assert np.array_equal(made[::2], other[::2]), "given frames are no matter of the noise"
    assert not np.array_equal(made[1::2], other[1::2])
    assert len(pipe.interpolate(noise(3), "a", factor=4, stride_frames=8, **CALL)) == 9


def test_a_stride_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match=r"between frames 3 source frames apart, which cannot be halved"):
        strides_of(None, 3, 4, 4, 6)


@pytest.mark.parametrize(
    ("frames", "given", "calls"), [(4, 1, 1), (3, 1, 1), (5, 1, 2), (7, 1, 2), (8, 1, 3), (8, 2, 3)]
)
def test_as_many_windows_are_made_as_the_length_takes(frames, given, calls):
    assert continuation.windows(frames, given, FRAMES) == calls


def test_a_video_goes_on_in_windows_that_are_given_the_last_frames_of_what_there_is(pipe):
    long = pipe.predict(noise(2), "a", frames=9, seed=3, **CALL)
    assert len(long) == 9
    one = pipe.predict(noise(2), "a", seed=3, **CALL)
    assert np.array_equal(long[:FRAMES], one), "the first window is what one call makes"
    assert np.array_equal(one, make_video(pipe, "a", 3, dict(enumerate(noise(2))), **CALL))
    other = pipe.predict(noise(2), "a", frames=9, seed=4, **CALL)
    assert np.array_equal(long[:2], other[:2]) and not np.array_equal(long[4:6], other[4:6])
    assert not np.array_equal(long[2:4], long[4:6]), "a window has noise of its own"


def test_a_window_is_given_frames_as_the_video_has_them_and_not_as_the_window_before_gave_them_back(pipe):
    given, made = noise(3), make_video(pipe, "a", 3, dict(enumerate(noise(3))), **CALL)
    for place in (1, 2):
        part = make_video(pipe, "a", draw_seed(3, "window", place), dict(enumerate(made[-3:])), **CALL)
        assert not np.array_equal(part[:3], made[-3:]), "a frame that was coded is another"
        made = np.concatenate([made, part[3:]])
    assert np.array_equal(pipe.predict(given, "a", frames=6, seed=3, **CALL), made)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda pipe: pipe.interpolate(noise(3), factor=3),
            "factor is 3: frames are doubled once or twice: use 2 or 4",
        ),
        (lambda pipe: pipe.interpolate(noise(1)), "frames are 1, but a call fills in between 2: give that many"),
        (lambda pipe: pipe.interpolate(noise(3), num_frames=2), "num_frames is 2, in which no frame lies between two"),
        (lambda pipe: pipe.interpolate(noise(3) / 255), r"frames is float64 .*: give frames as uint8 RGB"),
        (lambda pipe: pipe.predict(noise(4)), "video has 4 frames, but 4 are to be made of which they are the first"),
        (lambda pipe: pipe.predict(noise(2), frames=2), "video has 2 frames, but 2 are to be made"),
        (lambda pipe: pipe.predict(noise(1)[0]), "give frames as uint8 RGB"),
    ],
)
def test_what_cannot_be_made_is_refused_before_a_call(pipe, call, said):
    with pytest.raises(ValueError, match=said):
        call(pipe)
