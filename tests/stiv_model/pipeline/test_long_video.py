"""A long video: which calls make it, at which strides, and what of it is held."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from stiv_model.pipeline import long_video
from stiv_model.pipeline.long_video import LongVideo
from stiv_model.pipeline.one_video import make_video
from stiv_model.settings import Encoders, Mode
from stiv_model.weights.metadata import Trained


def trained(clean_frames, **changes) -> Trained:
    values = {
        "recipe_name": "long_video",
        "steps": 1,
        "frames": 4,
        "stride_frames": 2,
        "latent_height": 4,
        "latent_width": 4,
        "clean_frames": clean_frames,
        "text_dropout": 0.1,
        "image_dropout": 0.1,
        "ema_decay": 0.9,
        "encoders": Encoders(vae_sha256="v", text_sha256="t"),
    }
    return Trained(**(values | changes))


def modes(keys: int, between: int) -> tuple[Mode, ...]:
    return (
        Mode(clean_frames="first", stride=keys, weight=1.0, frames=4),
        Mode(clean_frames="first_and_last", stride=between, weight=1.0, frames=4),
    )


FURTHER = tuple(Mode(clean_frames=given, stride=1, weight=1.0) for given in ("first_four", "first_and_last"))
"""Modes of a recipe of longer samples."""


class Counting:
    """A model that notes its calls, and makes frames of the number of the call."""

    defaults = SimpleNamespace(frames=4, stride_frames=2)

    def __init__(self) -> None:
        self.calls: list[dict] = []

    def __call__(self, prompt, frames, num_frames, **asked):
        self.calls.append({"prompt": prompt, "frames": frames, "seed": asked["generator"].initial_seed(), **asked})
        made = np.full((num_frames, 2, 2, 3), len(self.calls) / 255, np.float32)
        for place, frame in frames.items():
            made[place] = frame / np.float32(255)
        return (made[None],)


@pytest.mark.parametrize(
    ("frames", "prompts", "keys", "calls"),
    [
        (31, ("a",), 11, [(0, 4), (4, 3), (7, 3), (10, 1)]),
        (30, ("a",), 11, [(0, 4), (4, 3), (7, 3), (10, 1)]),
        (28, ("a",), 10, [(0, 4), (4, 3), (7, 3)]),
        (2, ("a",), 2, [(0, 2)]),
        (13, ("a", "a", "b", "b", "a"), 5, [(0, 2), (2, 2), (4, 1)]),
    ],
)
def test_calls_cover_all_key_frames_each_with_one_prompt(frames, prompts, keys, calls):
    video = LongVideo(frames, 4, 2, prompts)
    assert (video.key_frames, video.windows, video.key_stride) == (keys, keys - 1, 6)
    made = list(video.calls())
    assert [(one.first, one.number) for one in made] == calls
    assert [one.prompt for one in made] == [video.prompt(one.first) for one in made]
    assert all(one.first + one.number == after.first for one, after in pairwise(made))


@pytest.mark.parametrize("frames", [2, 4, 5, 7, 12, 13, 14])
def test_frames_are_counted_and_windows_share_their_key_frame(frames):
    model = Counting()
    video = LongVideo(frames, 4, 2, ("a",))
    parts = list(long_video.windows(model, video, 5, None, {}))
    made = np.concatenate(parts)
    assert len(made) == frames
    assert max(map(len, parts)) < video.window, "no more than a window is held"
    between = [call for call in model.calls if set(call["frames"]) == {0, 3}]
    assert len(between) == video.windows
    for place, call in enumerate(between):
        assert call["stride_frames"] == 2
        assert np.array_equal(made[3 * place], call["frames"][0]), "the key frame comes once, as it was made"
    for one, after in pairwise(between):
        assert np.array_equal(one["frames"][3], after["frames"][0])
    keys = [call for call in model.calls if set(call["frames"]) != {0, 3}]
    assert {call["stride_frames"] for call in keys} == {6}
    assert [set(call["frames"]) for call in keys] == [set(), *[{0}] * (len(keys) - 1)]
    assert len({call["seed"] for call in model.calls}) == len(model.calls) and keys[0]["seed"] == 5


def test_a_given_picture_is_the_first_key_frame_and_prompts_lead_up_to_theirs():
    model = Counting()
    picture = np.full((2, 2, 3), 99, np.uint8)
    video = LongVideo(7, 4, 2, ("a", "b", "c"))
    made = np.concatenate(list(long_video.windows(model, video, 0, picture, {})))
    assert np.array_equal(made[0], picture)
    prompts = [(call["prompt"], sorted(call["frames"])) for call in model.calls]
    assert prompts == [("a", [0]), ("b", [0]), ("b", [0, 3]), ("c", [0]), ("c", [0, 3])]


def test_both_key_frames_of_a_window_come_out_bit_for_bit_as_they_were_given(pipe):
    picture = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    keys, written = [], []

    def keep(name, part):
        made = part()
        (keys if name.startswith("keys") else written).extend(made)
        return made

    video = LongVideo(13, 4, 2, ("a",))
    call = {"untrained": True, "num_inference_steps": 1}
    made = np.concatenate(list(long_video.windows(pipe, video, 0, picture, call, keep)))
    assert len(keys) == 5 and np.array_equal(made[::3], keys), "none goes through the VAE once more"
    assert np.array_equal(made[:-1], written)
    again = make_video(pipe, "a", 0, {0: keys[1]}, **call)
    assert not np.array_equal(again[0], keys[1]), "this VAE loses something"


def test_what_is_kept_is_not_made_again_and_all_else_is_the_same():
    kept: dict[str, np.ndarray] = {}

    def keep(name, part):
        if name not in kept:
            kept[name] = part()
        return kept[name]

    video = LongVideo(20, 4, 2, ("a",))
    whole = np.concatenate(list(long_video.windows(Counting(), video, 0, None, {}, keep)))
    again = Counting()
    assert np.array_equal(np.concatenate(list(long_video.windows(again, video, 0, None, {}, keep))), whole)
    assert not again.calls
    del kept["window-000003"]
    assert len(np.concatenate(list(long_video.windows(again, video, 0, None, {}, keep)))) == 20
    assert len(again.calls) == 1


@pytest.mark.parametrize(
    ("video", "said"),
    [
        (LongVideo(1, 4, 2, ("a",)), "a video of 1 frames in windows of 4 has nothing between key frames"),
        (LongVideo(9, 2, 2, ("a",)), "windows of 2 has nothing between"),
        (LongVideo(13, 4, 2, ("a", "b")), "2 prompts are given, but 13 frames in windows of 4 have 5 key frames"),
    ],
)
def test_what_is_no_long_video_is_refused(video, said):
    with pytest.raises(ValueError, match=said):
        next(long_video.windows(Counting(), video, 0, None, {}))


@pytest.mark.parametrize(("between", "said"), [(None, ["b", "c", "d"]), ("", ["", "", ""]), ("on", ["on", "on", "on"])])
def test_frames_between_key_frames_have_the_prompt_of_the_one_after_them_or_their_own(between, said):
    model = Counting()
    list(long_video.windows(model, LongVideo(10, 4, 2, tuple("abcd"), between), 0, None, {}))
    assert [call["prompt"] for call in model.calls if set(call["frames"]) == {0, 3}] == said
    assert [call["prompt"] for call in model.calls if set(call["frames"]) != {0, 3}] == ["a", "b", "c", "d"]


def test_no_text_is_refused_of_a_model_that_never_went_without():
    never = trained(modes(3, 1), text_dropout=0.0)
    assert long_video.not_trained(LongVideo(10, 4, 2, ("a",)), False, never) is None
    assert "text_dropout 0" in long_video.not_trained(LongVideo(10, 4, 2, ("a",), ""), False, never)


def test_a_window_that_is_asked_for_is_as_far_apart_as_in_its_training():
    said = trained((*modes(3, 1), *modes(6, 2)), frames=4)
    assert long_video.window_of(said, 4, Counting.defaults) == (4, 4)
    assert long_video.window_of(said, 6, Counting.defaults) == (6, 2)


@pytest.mark.parametrize(
    ("said", "window", "refused"),
    [
        (None, (4, 2), None),
        (trained(modes(3, 1)), (4, 2), None),
        (trained((*modes(3, 1), *modes(6, 2))), (4, 4), None),
        (trained((*modes(3, 1), Mode(clean_frames="first_and_last", stride=2, weight=1.0, frames=4))), (4, 2), None),
        (trained((*modes(3, 1), *FURTHER), frames=10), (4, 2), None),
        (
            trained(modes(4, 1)),
            (4, 2),
            "key frames are 6 source frames apart: stride_frames is 6, but .* with 2 or 8 for no frame given",
        ),
        (trained("first"), (4, 2), "key frames are 6 source frames apart: stride_frames is 6, but .* with 2"),
        (trained("first", stride_frames=6), (4, 2), "between key frames are 2 source .* first_and_last.*long_video"),
        (trained(FURTHER, frames=10), (10, 2), "key frames are 18 source frames apart: .* with 2 for no frame given"),
    ],
)
def test_both_modes_must_have_been_learned_at_strides_that_fit(said, window, refused):
    assert long_video.window_of(said, None, Counting.defaults) == window
    video = LongVideo(31, *window, ("a",))
    found = long_video.not_trained(video, False, said)
    if refused is None:
        assert found is None
    else:
        with pytest.raises(ValueError, match=refused):
            raise ValueError(found)
