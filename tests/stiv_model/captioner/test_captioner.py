"""The small captioner with random weights: its files, its stills, and how sentences of frames are merged."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stiv_model.captioner import files
from stiv_model.captioner.captioner import load_captioner, merge, save_captioner
from stiv_model.captioner.network import CaptionerNetwork
from tasks.demo import shapes
from tasks.demo.train_captioner import ANYWHERE, CENTRAL, make_config, still_scene

SEED = 1000  # of no training


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of random weights: what it says has no sense, and is said all the same."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("captioner")
    save_captioner(CaptionerNetwork(make_config()), path)
    return path


@pytest.fixture(scope="module")
def captioner(made):
    return load_captioner(made)


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "captioner")


@pytest.fixture(scope="module")
def clips():
    return [still_scene(SEED, number, held_out=False, look=ANYWHERE)[1] for number in range(6)]


def test_equal_stills_have_equal_sentences_whatever_was_asked_before(made, captioner, clips):
    alone = [(load_captioner(made).describe(clip), load_captioner(made).describe_merged(clip)) for clip in clips[:2]]
    many = [(captioner.describe(clip), captioner.describe_merged(clip)) for clip in reversed(clips)]
    assert many[::-1][:2] == alone


def test_of_one_still_it_says_something_all_the_same(captioner, clips):
    for clip in clips:
        [sentence] = captioner.describe_each(clip[2:3])
        assert sentence == captioner.describe(clip[2:3]) == captioner.describe_merged(clip[2:3])


@pytest.mark.parametrize("count", [0, 5])
def test_too_few_or_too_many_stills_are_refused(captioner, clips, count):
    with pytest.raises(ValueError, match=f"{count} stills"):
        captioner.describe((clips[0] * 2)[:count])


@pytest.mark.parametrize(
    "broken", [lambda still: still[: len(still) // 2], lambda still: b"", lambda still: b"\xff\xd8\xff" + b"\xff\xd9"]
)
def test_a_still_that_is_no_whole_picture_is_refused(captioner, clips, broken):
    still = broken(clips[0][1])
    for describe in (captioner.describe, captioner.describe_merged):
        with pytest.raises(ValueError, match=f"{len(still)} bytes"):
            describe([clips[0][0], still])


def test_the_sentences_of_frames_are_merged_word_by_word():
    said = ["over a plain grey background, a red circle moves up", "a red square moves left", "a red square moves down"]
    kinds = [shapes.COLOURS, shapes.SHAPES, shapes.DIRECTIONS]
    assert merge(said, kinds) == "over a plain grey background, a red square moves up"
    assert merge(said[::-1], kinds) == "a red square moves down"
    assert merge(["nothing is there"], kinds) == "nothing is there"


def test_the_hash_changes_with_each_file(folder):
    before = files.sha256_of(folder)
    assert before == load_captioner(folder).sha256
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_words": 5}))
    changed = load_captioner(folder)
    assert changed.sha256 != before
    assert len(changed.describe(still_scene(SEED, 0, False, CENTRAL)[1]).split()) <= 5
    weights = load_file(folder / files.WEIGHTS)
    save_file({name: values + 0.001 for name, values in weights.items()}, folder / files.WEIGHTS)
    assert files.sha256_of(folder) not in (before, changed.sha256)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda weights: weights.pop("places"), "places"),
        (lambda weights: weights.update(other=torch.zeros(1)), "other"),
        (lambda weights: weights.update(places=torch.zeros(3, 4)), r"\(3, 4\)"),
    ],
)
def test_weights_of_another_network_are_refused(folder, change, named):
    weights = load_file(folder / files.WEIGHTS)
    change(weights)
    save_file(weights, folder / files.WEIGHTS)
    with pytest.raises(ValueError, match=named):
        load_captioner(folder)


def test_files_that_are_missing_or_damaged_are_refused(folder):
    content = (folder / files.WEIGHTS).read_bytes()
    (folder / files.WEIGHTS).write_bytes(content[:-10])
    with pytest.raises(ValueError, match="no whole safetensors"):
        load_captioner(folder)
    (folder / files.WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_captioner(folder)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_captioner(folder / "nowhere")


def test_grey_noise_is_described_as_something_of_its_world(captioner):
    noise = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    sentence = captioner.describe([cv2.imencode(".jpg", frame)[1].tobytes() for frame in noise])
    assert 1 <= len(sentence.replace(",", " ,").split()) <= captioner.config.max_words
