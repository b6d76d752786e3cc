"""Texts, counts and generators of a call: forms that mean the same, and those that mean nothing."""

import numpy as np
import pytest
import torch

from stiv_model.pipeline.inputs import check_size, noise_of, not_trained
from stiv_model.settings import LearnedSettings, Mode
from tests.stiv_model.pipeline.test_pipeline import TRAINED, latents, picture, seeded
from tests.stiv_model.runs import SETTINGS


def test_texts_come_as_a_list_or_a_tuple(pipe):
    expected = latents(pipe, ["abc", "de"], negative_prompt=["xx", "yy"])
    assert torch.equal(latents(pipe, ("abc", "de"), negative_prompt=("xx", "yy")), expected)
    # a tuple taken for one pair of sentences would stand for both
    swapped = latents(pipe, ("abc", "de"), negative_prompt=("yy", "xx"))
    assert (swapped - expected).abs().amax((1, 2, 3, 4)).min() > 1e-3


def test_one_negative_prompt_serves_all(pipe):
    one, each = (latents(pipe, ["abc", "de"], negative_prompt=text) for text in ("xx", ("xx", "xx")))
    assert torch.equal(one, each)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompt": []}, r"prompt is \[\]: give a text, or a list of at least one"),
        ({"prompt": ()}, r"prompt is \(\): give a text"),
        ({"prompt": None}, "prompt is None: give a text, or a list of texts"),
        ({"prompt": 5}, "prompt is 5"),
        ({"prompt": b"abc"}, "prompt is b'abc'"),
        ({"prompt": {"abc": 1}}, "prompt is {'abc': 1}"),
        ({"prompt": ["abc", None]}, r"prompt\[1\] is None: give a text"),
        ({"prompt": [("a", "b")]}, r"prompt\[0\] is \('a', 'b'\): give a text"),
        ({"prompt": [["a"]]}, r"prompt\[0\] is \['a'\]"),
        ({"negative_prompt": 0}, "negative_prompt is 0: give a text, or a list of texts"),
        ({"negative_prompt": False}, "negative_prompt is False"),
        ({"negative_prompt": []}, "negative_prompt has 0 texts for 1 prompts"),
        ({"negative_prompt": [None]}, r"negative_prompt\[0\] is None"),
        ({"negative_prompt": [("x", "y")]}, r"negative_prompt\[0\] is \('x', 'y'\)"),
        ({"prompt": ["abc", "de"], "negative_prompt": ["x"]}, "negative_prompt has 1 texts for 2 prompts"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt is 0: give a whole number of 1 or more"),
        ({"num_videos_per_prompt": -2}, "num_videos_per_prompt is -2"),
        ({"num_videos_per_prompt": 1.5}, "num_videos_per_prompt is 1.5"),
        ({"num_videos_per_prompt": None}, "num_videos_per_prompt is None"),
        ({"num_videos_per_prompt": True}, "num_videos_per_prompt is True"),
        ({"generator": 0}, r"generator is or has 0: give torch\.Generator\(\)\.manual_seed"),
        ({"generator": "cpu"}, "generator is or has 'cpu'"),
        ({"generator": [None]}, "generator is or has None"),
        ({"generator": []}, "generator has 0 generators for 1 videos"),
        ({"generator": tuple(seeded(0, 1))}, "generator has 2 generators for 1 videos"),
        ({"callback_on_step_end": 3}, "callback_on_step_end is 3: give a function"),
        ({"frames": [1]}, r"frames is a list: give pictures by their place, such as frames={0: image}"),
        ({"frames": {"0": 1}}, r"frames\['0'\] is given, but places are whole numbers"),
        ({"frames": {1.0: 1}}, r"frames\[1\.0\] is given, but places are whole numbers"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_scale": -1}, "guidance_scale is -1"),
        ({"num_frames": 2.5}, "num_frames is 2.5"),
        ({"height": "high"}, "height is 'high'"),
    ],
)
def test_what_means_nothing_is_refused_by_the_name_of_the_argument(pipe, asked, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        pipe(**({"prompt": "abc"} | asked))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((6, 32, 32), "num_frames is 6, 3 tokens of 2, .* learned 2 positions there: use 4 at most"),
        ((4, 96, 32), "height is 96, 6 tokens of 16, .* learned 4 positions there: use 64 at most"),
        ((4, 64, 64), "width is 64, 4 tokens of 16, .* learned 3 positions there: use 48 at most"),
    ],
)
def test_more_tokens_than_learned_positions_are_refused_with_both_numbers(size, said):
    positions = LearnedSettings(kind="learned", rows=4, columns=3, num_temporal=2, std=0.5)
    model = SETTINGS.model_copy(update={"positions": positions})
    check_size(model, True, 4, 64, 48, downsampling=8)
    with pytest.raises(ValueError, match=f"^{said}$"):
        check_size(model, True, *size, downsampling=8)


def test_generators_come_as_a_list_or_a_tuple(pipe):
    assert torch.equal(latents(pipe, generator=tuple(seeded(3))), latents(pipe, generator=seeded(3)))


def test_numbers_of_numpy_are_numbers(pipe):
    asked = {"num_videos_per_prompt": np.int64(2), "num_inference_steps": np.int64(3), "guidance_scale": np.float32(2)}
    asked |= {"height": np.int32(24), "generator": seeded(0, 1)}
    assert latents(pipe, **asked).shape == (2, 4, 4, 12, 8)


def test_noise_without_a_generator_is_drawn_on_the_cpu_wherever_the_model_is():
    draws = []
    for device in ("cpu", "meta"):  # meta has shapes and no values
        torch.manual_seed(5)
        noise = noise_of((2, 3), 4, None, torch.device(device))()
        assert (noise.device.type, noise.shape) == (device, (4, 2, 3))
        draws.append(torch.rand(1))
    assert draws[0] == draws[1], "torch's generator of the CPU has gone as far"


TWO_MODES = (
    Mode(clean_frames="first", stride=20, weight=1.0),
    Mode(clean_frames="first_and_last", stride=1, weight=1.0),
)


@pytest.mark.parametrize(
    ("trained", "asked", "said"),
    [
        ({}, ({0}, 4, 3), None),
        ({}, (set(), 4, 3), None),
        (
            {"image_dropout": 0.0},
            (set(), 4, 3),
            "no frame is given, but the model was trained (recipe stiv) with frame 0: ",
        ),
        (
            {},
            ({0, 1}, 4, 3),
            "frames 0 and 1 are given, but the model was trained (recipe stiv) with no frame or frame 0",
        ),
        ({}, ({0, 3}, 4, 3), "clean_frames: first_and_last, as recipe interpolation has it"),
        ({"frames": 8}, ({0, 1, 2, 3}, 8, 3), "clean_frames: first_four, as recipe v2v has it"),
        ({"frames": 8}, ({0, 2, 4, 6}, 8, 3), "clean_frames: every_second, as recipe tup has it"),
        ({"clean_frames": "every_second"}, ({0, 2}, 4, 3), None),
        ({}, ({2}, 4, 3), "clean_frames: [2]"),
        ({}, ({0}, 6, 3), "num_frames is 6, but the model was trained (recipe stiv) with 4"),
        ({}, ({0}, 4, 1), "stride_frames is 1, but the model was trained (recipe stiv) with 3 for frame 0 given"),
        ({"clean_frames": TWO_MODES}, ({0}, 4, 60), None),
        ({"clean_frames": TWO_MODES}, ({0, 3}, 4, 3), None),
        ({"clean_frames": TWO_MODES}, (set(), 4, 60), None),
        (
            {"clean_frames": TWO_MODES},
            ({0, 3}, 4, 60),
            "stride_frames is 60, but the model was trained (recipe stiv) with 3",
        ),
        ({"frames": 1, "stride_frames": 0, "clean_frames": "none"}, (set(), 1, 3), None),
        (None, ({2}, 6, 7), None),
    ],
)
def test_what_a_training_never_had_is_named_with_what_would_learn_it(trained, asked, said):
    found = not_trained(*asked, None if trained is None else TRAINED.model_copy(update=trained))
    assert (found is None) if said is None else (found is not None and said in found)


def test_a_call_for_what_was_never_learned_is_refused_unless_it_is_wanted(pipe):
    with pytest.raises(
        ValueError, match=r"frame 2 is given, but .*; untrained=True \(--untrained\) goes on all the same$"
    ):
        pipe("abc", frames={2: picture()})
    assert len(pipe("abc", frames={2: picture()}, untrained=True, output_type="np").frames) == 1
