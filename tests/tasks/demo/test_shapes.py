import collections
import hashlib

import cv2
import numpy as np
import pytest

from tasks.demo import shapes
from tasks.demo.look import BACKGROUNDS, LARGEST, MARGIN, SHORTEST, SMALLEST, TEXTURED, Look

LOOKS = {
    "textured": TEXTURED,
    "large": Look((0.45, 0.6), (SHORTEST, 0.36), BACKGROUNDS),
    "from the middle": Look((0.46, 0.52), (0.22, 0.26), ("shaded", "plain"), start=0.44, across=(0.42, 0.58)),
    "plain": Look((0.3, 0.5), (0.3, 0.46), ("plain",)),
    "smallest": Look((SMALLEST, SMALLEST), (SHORTEST, 1 - 2 * MARGIN - SMALLEST), BACKGROUNDS),
    "largest": Look((LARGEST, LARGEST), (SHORTEST, 1 - 2 * MARGIN - LARGEST), BACKGROUNDS),
}
WAYS = {"left": "right", "right": "left", "up": "down", "down": "up"}


def combination(scene: shapes.Scene) -> shapes.Combination:
    return shapes.Combination(scene.colour, scene.shape, scene.direction)


def small_video(scene: shapes.Scene) -> np.ndarray:
    """Render as the corpus is, then take frames and pixels as stage latents does: 8 frames of 64 pixels."""
    frames = shapes.render(scene, pixels=128, frames=24)[::3]
    return np.stack([cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA) for frame in frames])


def test_held_out_combinations_take_equally_from_every_word():
    for words in zip(*shapes.HELD_OUT, strict=True):
        assert len(set(collections.Counter(words).values())) == 1
    assert len(shapes.HELD_OUT) == 12
    assert {word for row in shapes.HELD_OUT for word in row} == {
        *shapes.COLOURS,
        *shapes.SHAPES,
        *shapes.DIRECTIONS,
    }


def test_training_scenes_never_show_a_held_out_combination_and_show_all_others():
    shown = {combination(shapes.scene(seed=0, number=number, held_out=False)) for number in range(2000)}
    assert not shown & set(shapes.HELD_OUT)
    assert shown == set(shapes.TRAINING)
    assert len(shown) == 96 - 12


def test_held_out_scenes_show_held_out_combinations_in_equal_numbers():
    shown = collections.Counter(combination(shapes.scene(5, number, held_out=True)) for number in range(48))
    assert shown == dict.fromkeys(shapes.HELD_OUT, 4)


def test_a_scene_is_the_same_each_time_and_another_for_another_number_or_seed():
    scene = shapes.scene(3, 17, held_out=False)
    assert scene == shapes.scene(3, 17, held_out=False)
    assert scene not in (shapes.scene(3, 18, held_out=False), shapes.scene(4, 17, held_out=False))
    np.testing.assert_array_equal(shapes.render(scene, 64, 4), shapes.render(scene, 64, 4))


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match="number is -1"):
        shapes.scene(0, -1, held_out=False)


def test_a_caption_holds_the_words_of_its_scene_and_no_others():
    for number in range(200):
        scene = shapes.scene(1, number, held_out=False)
        words = shapes.caption(scene).replace(",", "").split()
        said = [word for word in words if word in {*shapes.COLOURS, *shapes.SHAPES, *shapes.DIRECTIONS}]
        assert sorted(said) == sorted(combination(scene))
        named = [word for word in words if word in BACKGROUNDS]
        assert named in ([scene.background], [])  # a short sentence says nothing of the background


def test_the_prompt_of_a_combination_is_of_the_form_of_a_caption():
    scene = shapes.scene(0, 0, held_out=True)._replace(template=0)
    assert shapes.prompt(combination(scene), scene.background) == shapes.caption(scene)


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_the_shape_stays_in_the_picture_and_moves_as_far_as_its_scene_says(look):
    for number in range(100):
        scene = shapes.scene(2, number, held_out=False, look=look)
        dx, dy = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[scene.direction]
        end = (scene.start[0] + dx * scene.travel, scene.start[1] + dy * scene.travel)
        for place in (*scene.start, *end):
            assert scene.size / 2 < place < 1 - scene.size / 2
        assert scene.background in look.backgrounds
        assert look.size[0] <= scene.size <= look.size[1] and look.travel[0] <= scene.travel <= look.travel[1]


def test_the_scenes_of_the_default_look_are_those_that_the_embedded_vae_learnt_from():
    digest = hashlib.sha256()
    for number in range(12):
        shown = shapes.scene(7, number, held_out=number % 2 == 0)._replace(template=0)  # the VAE saw no sentence
        digest.update(repr(shown).encode())
    assert digest.hexdigest() == "7f9dbd2e21ba6180517aee5e2c9de5b5a2bde3c507240f85c2405ee89b5a1fbe"


def test_an_object_starts_as_far_from_the_edge_and_as_near_the_middle_across_as_the_look_says():
    look = LOOKS["from the middle"]
    for number in range(200):
        made = shapes.scene(3, number, held_out=False, look=look)
        dx, dy = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[made.direction]
        along, across = made.start if dx else made.start[::-1]
        assert (along if dx + dy > 0 else 1 - along) >= look.start
        assert look.across[0] <= across <= look.across[1]


def test_every_kind_of_background_is_shown_and_a_plain_one_has_one_colour():
    scenes = [shapes.scene(0, number, held_out=True, look=LOOKS["large"]) for number in range(60)]
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    plain = next(scene for scene in scenes if scene.background == "plain")
    video = shapes.render(plain, 64, 8)
    background = np.median(video.reshape(-1, 3), axis=0)
    assert (video[0, :2] == background).all() and (video == background).all(axis=-1).mean() > 0.4
    assert "plain grey" in shapes.caption(plain._replace(template=0))


def test_the_background_is_grey_and_stands_still():
    scene = shapes.scene(0, 4, held_out=False)
    video = shapes.render(scene, 64, 8).astype(int)
    chroma = video.max(axis=-1) - video.min(axis=-1)
    behind = (chroma < 60).all(axis=0)
    assert behind.mean() > 0.4
    assert (video[0][behind] == video[-1][behind]).mean() > 0.95


def test_the_judge_is_right_on_99_of_100_held_out_videos():
    right = 0
    for number in range(144):
        scene = shapes.scene(11, number, held_out=True)
        seen = shapes.judge(small_video(scene))
        right += (seen.colour, seen.shape, seen.direction) == combination(scene) and seen.moved
    assert right >= 143


@pytest.mark.parametrize("name", [name for name in LOOKS if name != "textured"])
def test_the_judge_is_right_on_every_look_that_the_settings_allow(name):
    for number in range(24):
        scene = shapes.scene(13, number, held_out=True, look=LOOKS[name])
        seen = shapes.judge(small_video(scene))
        assert (seen.colour, seen.shape, seen.direction) == combination(scene) and seen.moved


def test_the_judge_is_as_right_on_noisy_blurred_videos_with_one_stray_frame():
    random, right = np.random.default_rng(0), 0
    for number in range(60):
        scene = shapes.scene(12, number, held_out=True)
        video = np.stack([cv2.GaussianBlur(frame, (5, 5), 1.0) for frame in small_video(scene)])
        video[random.integers(1, 7)] = video[0]
        video = np.clip(video + random.normal(0, 12, video.shape), 0, 255).astype(np.uint8)
        seen = shapes.judge(video)
        right += (seen.colour, seen.shape, seen.direction) == combination(scene)
    assert right >= 57


def test_a_still_video_does_not_move_but_has_colour_and_shape():
    scene = shapes.scene(0, 3, held_out=True)
    seen = shapes.judge(np.repeat(small_video(scene)[:1], 8, axis=0))
    assert (seen.colour, seen.shape) == (scene.colour, scene.shape)
    assert (seen.direction, seen.moved) == (None, False)


def test_backwards_is_the_opposite_direction():
    for number in range(12):
        scene = shapes.scene(0, number, held_out=True)
        assert shapes.judge(small_video(scene)[::-1].copy()).direction == WAYS[scene.direction]


def test_nothing_is_seen_in_grey_and_in_noise():
    grey = np.full((8, 64, 64, 3), 128, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, grey.shape, dtype=np.uint8)
    for video in (grey, noise):
        seen = shapes.judge(video)
        assert seen == shapes.Verdict(None, None, None, False, 0.0, 0.0, 0.0, False)


def test_an_object_seen_in_few_frames_is_none():
    scene = shapes.scene(0, 0, held_out=True)
    video = np.full((8, 64, 64, 3), 128, np.uint8)
    video[:2] = small_video(scene)[:2]
    assert shapes.judge(video).colour is None


def test_a_real_video_shows_one_object_and_the_same_in_all_frames():
    for number in range(12):
        seen = shapes.judge(small_video(shapes.scene(14, number, held_out=True)))
        assert seen.is_one_object and seen.is_same_object


@pytest.mark.parametrize(
    "change",
    [{"shape": "cross"}, {"size": 0.32}, {"colour": "blue"}, {"start": (0.25, 0.8)}],
    ids=["shape", "size", "colour", "place"],
)
def test_an_object_that_is_another_from_the_middle_on_is_not_the_same(change):
    scene = shapes.scene(0, 0, held_out=True)._replace(
        colour="red", shape="circle", direction="right", size=0.25, start=(0.3, 0.2), travel=0.3
    )
    video, other = (small_video(one) for one in (scene, scene._replace(**change)))
    assert shapes.judge(video).is_same_object
    assert not shapes.judge(np.stack([*video[:4], *other[4:]])).is_same_object


def test_two_objects_and_blobs_that_flicker_are_not_one_object():
    video = small_video(shapes.scene(0, 0, held_out=True))
    assert not shapes.judge(np.concatenate([video, video], axis=2)).is_one_object
    random, grey = np.random.default_rng(0), np.full((8, 64, 64, 3), 128, np.uint8)
    for frame in grey:
        for _ in range(6):
            cv2.circle(frame, random.integers(6, 58, 2).tolist(), 6, (240, 20, 20), -1)
    seen = shapes.judge(grey)
    assert seen.colour == "red" and not seen.is_one_object and not seen.is_same_object


def test_a_single_frame_is_the_same_as_itself():
    assert shapes.judge(small_video(shapes.scene(0, 0, held_out=True))[:1]).is_same_object


def test_a_sentence_says_one_word_of_each_kind_or_nothing():
    for number in range(20):
        scene = shapes.scene(0, number, held_out=True)
        assert shapes.said(shapes.caption(scene)) == combination(scene)
    assert shapes.said("A red circle, moving LEFT.") == ("red", "circle", "left")
    assert shapes.said("a red circle") is shapes.said("a red or blue circle moves left") is shapes.said("") is None


def test_the_judge_refuses_what_is_not_a_video():
    with pytest.raises(ValueError, match="float32"):
        shapes.judge(np.zeros((8, 64, 64, 3), np.float32))
