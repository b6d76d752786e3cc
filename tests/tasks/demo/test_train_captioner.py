"""The training of the embedded captioner, at the size of a test."""

import pytest
import torch

from stiv_model.captioner.files import PAD, sha256_of
from tasks.demo import shapes
from tasks.demo.train_captioner import (
    ANYWHERE,
    FRAMES,
    Scenes,
    accuracy_of,
    make_config,
    save,
    split_words,
    still_scenes,
    train,
)


@pytest.fixture(scope="module")
def scenes():
    return Scenes(12, 3, make_config())


def trained(folder):
    torch.manual_seed(3)
    network = train(Scenes(12, 3, make_config()), steps=2, batch=4, log_steps=2, seed=3)
    save(network, folder, "python -m tasks.demo.train_captioner", seed=4, count=2)
    return folder


def test_the_same_seed_makes_the_same_bits(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second = trained(tmp_path / "a"), trained(tmp_path / "b")
    finally:
        torch.set_num_threads(threads)
    assert sha256_of(first) == sha256_of(second)
    card = (first / "README.md").read_text()
    assert "Right words, per cent of 2 scenes" in card and sha256_of(first) in card


def test_a_scene_that_is_mirrored_or_played_backwards_is_called_so(scenes):
    config = scenes.config
    base = {tuple(words.tolist()): place for place, words in enumerate(scenes.words_NT)}
    assert len(base) == 12
    pictures, words = scenes.batch(64)
    assert pictures.shape == (64, FRAMES, 3, config.pixels, config.pixels)
    assert pictures.min() >= 0 and pictures.max() <= 1
    turned = 0
    for shown, said in zip(pictures, words, strict=True):
        verdict = shapes.judge((255 * shown).round().byte().permute(0, 2, 3, 1).numpy())
        text = " ".join(config.words[word] for word in said if config.words[word] != PAD)
        turned += tuple(said.tolist()) not in {key[: len(said)] for key in base}
        assert verdict.direction == shapes.said(text).direction
        assert verdict.colour == shapes.said(text).colour
    assert turned > 10


def test_a_captioner_that_reads_the_truth_is_right_and_one_that_guesses_is_not():
    scenes = still_scenes(8, 3, ANYWHERE)
    truth = {tuple(stills): scene for scene, stills in scenes}
    assert accuracy_of(lambda stills: shapes.caption(truth[tuple(stills)]), scenes)[:3] == (1.0, 1.0, 1.0)
    found = accuracy_of(lambda stills: "a red circle moves up over a green cross", scenes)
    assert (found.colour, found.shape) == (0.0, 0.0) and 0.0 < found.direction < 1.0


def test_every_caption_is_of_its_words():
    words = set(make_config().words)
    for number in range(60):
        assert words.issuperset(split_words(shapes.caption(shapes.scene(9, number, held_out=False))))
