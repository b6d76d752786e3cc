"""The captioner that comes with the package."""

import cv2
import pytest

from stiv_model.captioner.captioner import load_captioner
from stiv_model.captioner.files import EMBEDDED, read_config
from tasks.demo import shapes
from tasks.demo.train_captioner import ANYWHERE, CENTRAL, accuracy_of, make_config, still_scenes

SEED = 1000  # of no training


@pytest.fixture(scope="module")
def captioner():
    return load_captioner()


def test_the_shipped_captioner_has_the_sizes_and_words_of_its_training():
    assert read_config(EMBEDDED) == make_config()


def test_a_sentence_of_all_frames_is_one_that_rules_can_read(captioner):
    assert all(shapes.said(captioner.describe(stills)) for _, stills in still_scenes(6, SEED, ANYWHERE))


def test_stills_of_another_size_and_shape_are_described(captioner):
    scene = shapes.scene(SEED, 0, held_out=False, look=CENTRAL)
    for size in ((256, 256), (90, 160)):
        video = [cv2.resize(frame, size[::-1]) for frame in shapes.render(scene, 128, 4)]
        stills = [cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes() for frame in video]
        assert shapes.said(captioner.describe(stills)).colour == scene.colour


@pytest.mark.long
def test_combinations_that_the_generator_never_sees_are_named_too(captioner):
    held_out = accuracy_of(captioner.describe, still_scenes(100, SEED, ANYWHERE, held_out=True))
    assert held_out.direction >= 0.95 and held_out.shape >= 0.85
