import re
from pathlib import Path

import pytest
import torch
import yaml

from stiv_model.latents.dataset import Batch
from stiv_model.network.conditions import MICRO_CONDITIONS
from stiv_model.settings import Encoders, Mode, RecipeSettings
from stiv_model.training.loss import choose_modes, draw, draw_length, losses, micro_conditions, take_frames
from stiv_model.weights.metadata import Trained
from tests.stiv_model.runs import random_text

ROOT = Path(__file__).parents[3]
KEY_FRAMES = Mode(clean_frames="first", stride=3, weight=1.0)
BETWEEN = Mode(clean_frames="first_and_last", stride=1, weight=3.0)


@pytest.fixture
def long_video(recipe):
    """4 frames, of which the key frames span 10."""
    return RecipeSettings.model_validate(recipe.model_dump() | {"clean_frames": (KEY_FRAMES, BETWEEN)})


def test_modes_are_drawn_in_proportion_to_their_weights():
    even = (torch.arange(1000) + 0.5) / 1000
    assert choose_modes((KEY_FRAMES, BETWEEN), even).bincount().tolist() == [250, 750]


def test_every_start_from_which_the_frames_fit_is_drawn_and_no_other(long_video, training):
    draws = draw(list(range(400)), (12, 1, 2, 2), 1, long_video, training)
    starts = {mode: set(draws.start_B[draws.mode_B == mode].tolist()) for mode in (0, 1)}
    assert starts == {0: set(range(12 - 9)), 1: set(range(12 - 3))}


def test_frames_are_taken_from_the_start_on_and_a_stride_apart():
    clips = torch.arange(12.0).expand(2, -1)[..., None, None, None]
    found = take_frames(clips, torch.tensor([2, 5]), torch.tensor([3, 1]), 4)
    assert found.flatten(1).tolist() == [[2, 5, 8, 11], [5, 6, 7, 8]]


def test_the_micro_conditions_say_how_far_apart_the_frames_are():
    stride = MICRO_CONDITIONS.index("stride_frames")
    micro = torch.full((2, len(MICRO_CONDITIONS)), 2.0)
    assert micro_conditions(micro, torch.tensor([3, 1]), 4)[:, stride].tolist() == [6, 2]
    assert micro_conditions(micro, torch.tensor([1, 1]), 1)[:, stride].tolist() == [0, 0]


def test_each_sample_of_a_mixture_sees_the_frames_of_its_own_mode(long_video, training, lively):
    """The loss depends on no other frame of the clip, and on no noise at the frames that the mode gives."""
    long_video = long_video.model_copy(update={"image_dropout": 0.0, "mask_ratio": 0.0})
    draws = draw(list(range(12)), (10, 4, 8, 8), 16, long_video, training)
    assert set(draws.mode_B.tolist()) == {0, 1}
    draws.noise_BFCHW.requires_grad_()
    clips = torch.randn(12, 10, 4, 8, 8, requires_grad=True)
    batch = Batch(["a"] * 12, clips, random_text(12), torch.ones(12, len(MICRO_CONDITIONS)))
    losses(lively(is_video=True), batch, draws, random_text(1), long_video, training).sum().backward()
    seen, noised = (x.grad.abs().sum((2, 3, 4)) > 0 for x in (clips, draws.noise_BFCHW))
    for number, mode in enumerate(draws.mode_B):
        start, stride = int(draws.start_B[number]), (3, 1)[mode]
        assert seen[number].nonzero().flatten().tolist() == [start + place * stride for place in range(4)]
        assert noised[number].nonzero().flatten().tolist() == ([1, 2, 3], [1, 2])[mode]


@pytest.fixture
def lengths(recipe):
    """Samples of 4 frames or, three times as often, of 2."""
    short = Mode(clean_frames="first", stride=5, weight=3.0, frames=2)
    whole = Mode(clean_frames="first_and_last", stride=1, weight=1.0)
    changes = {"clean_frames": (short, whole), "image_dropout": 0.0, "mask_ratio": 0.0, "batch": 6}
    return RecipeSettings.model_validate(recipe.model_dump() | changes)


def test_all_samples_of_a_step_have_one_length_and_each_is_as_often_as_it_weighs(lengths, training):
    drawn = [draw_length(step, lengths, training.seed) for step in range(400)]
    assert set(drawn) == {2, 4} and all(14 <= drawn[first : first + 20].count(2) <= 16 for first in range(380))
    assert drawn != [draw_length(step, lengths, training.seed + 1) for step in range(400)]
    for step, frames in enumerate(drawn[:6]):
        whole = draw(list(range(6 * step, 6 * step + 6)), (10, 4, 8, 8), 16, lengths, training)
        part = draw([6 * step + 4, 6 * step + 5], (10, 4, 8, 8), 16, lengths, training)
        assert whole.noise_BFCHW.shape[1] == frames
        for one, other in zip(whole, part, strict=True):
            assert torch.equal(one[4:], other), "on whichever rank and in whichever micro-batch a sample is"


def test_a_sample_of_fewer_frames_learns_from_those_alone(lengths, training, lively):
    steps = {draw_length(step, lengths, training.seed): step for step in range(40)}
    model = lively(is_video=True)
    for frames, stride, given in ((2, 5, [1]), (4, 1, [1, 2])):
        draws = draw(list(range(6 * steps[frames], 6 * steps[frames] + 6)), (10, 4, 8, 8), 16, lengths, training)
        draws.noise_BFCHW.requires_grad_()
        clips = torch.randn(6, 10, 4, 8, 8, requires_grad=True)
        batch = Batch(["a"] * 6, clips, random_text(6), torch.ones(6, len(MICRO_CONDITIONS)))
        losses(model, batch, draws, random_text(1), lengths, training).sum().backward()
        seen, noised = (x.grad.abs().sum((2, 3, 4)) > 0 for x in (clips, draws.noise_BFCHW))
        for number, start in enumerate(draws.start_B.tolist()):
            assert seen[number].nonzero().flatten().tolist() == [start + place * stride for place in range(frames)]
            assert noised[number].nonzero().flatten().tolist() == given


def test_a_clip_must_be_as_long_as_the_longest_of_its_modes_spans(lengths):
    assert lengths.span == 6 and [*lengths.lengths] == [2, 4]


@pytest.mark.parametrize(
    ("modes", "said"),
    [
        ([{"clean_frames": "first", "stride": 1, "weight": 1, "frames": 6}], "a mode has frames 6, and the recipe 4: "),
        ([{"clean_frames": "none", "stride": 1, "weight": 1, "frames": 1}], "a mode has frames 1, .*: use 2 to 4"),
        ([{"clean_frames": "first_four", "stride": 1, "weight": 1}], "frames is 4, but .* needs at least 5"),
    ],
)
def test_a_mode_of_a_length_that_it_cannot_have_is_refused(recipe, modes, said):
    with pytest.raises(ValueError, match=said):
        RecipeSettings.model_validate(recipe.model_dump() | {"clean_frames": modes})


@pytest.mark.parametrize(("frames", "stride", "makes"), [(4, 3, True), (4, 2, False), (2, 3, False)])
def test_key_frames_are_those_that_the_ends_of_a_window_are(recipe, frames, stride, makes):
    keys = Mode(clean_frames="first", stride=stride, weight=1.0, frames=frames)
    changed = recipe.model_dump() | {"frames": 4, "clean_frames": (keys, BETWEEN)}
    assert RecipeSettings.model_validate(changed).makes_long_videos is makes


def test_a_mixture_survives_the_card_of_a_checkpoint(long_video):
    trained = Trained(
        recipe_name="long_video", steps=3, frames=4, stride_frames=1, latent_height=8, latent_width=8,
        clean_frames=long_video.clean_frames, text_dropout=0.1, image_dropout=0.1, ema_decay=0.9,
        encoders=Encoders(vae_sha256="v", text_sha256="t"),
    )  # fmt: skip
    assert Trained.model_validate_json(trained.model_dump_json()) == trained


def test_the_recipes_of_the_documentation_are_settings_only():
    (text,) = re.findall(r"```yaml\n(v2v:.*?)```", (ROOT / "docs/model.md").read_text(), re.DOTALL)
    found = {name: RecipeSettings.model_validate(values) for name, values in yaml.safe_load(text).items()}
    spans = {"v2v": 20, "interpolation": 20, "views": 8, "long_video": 362}
    assert {name: recipe.span for name, recipe in found.items()} == spans


def test_views_are_not_mixed_with_other_patterns(recipe):
    views = Mode(clean_frames="views", stride=1, weight=1.0)
    with pytest.raises(ValueError, match="a mixture with views"):
        RecipeSettings.model_validate(recipe.model_dump() | {"clean_frames": (views, BETWEEN)})
