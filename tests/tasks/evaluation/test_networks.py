"""Metrics by networks that params.yaml names, and that there is no such figure without."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPConfig, CLIPModel

from tasks.evaluation import measure, networks, summary
from tasks.evaluation.settings import FlowNetworkSettings
from tasks.scores.settings import ImageEncoderSettings
from tests.made_evaluated import SETTINGS, changed, frozen, real_videos
from tests.made_networks import write_flow_network

WORDS = ["<end>", "red", "green", "circle", "<other>"]


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory) -> Path:
    """A tiny CLIP model of random weights, both sides, with a tokenizer of few words."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = sizes | {"vocab_size": len(WORDS), "max_position_embeddings": 6, "eos_token_id": 0, "projection_dim": 8}
    vision = sizes | {"image_size": 32, "patch_size": 16, "projection_dim": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<other>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<other>", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


def test_raft_small_is_measured_where_a_file_is_named(tmp_path):
    sha256 = write_flow_network(tmp_path / "raft.pt")
    named = FlowNetworkSettings(weights=tmp_path / "raft.pt", sha256=sha256, device="cpu")
    (metric,) = networks.load(SETTINGS.model_copy(update={"raft_small": named})).metrics
    assert (metric.name, metric.protocol["weights_sha256"]) == ("dynamics_raft_small", sha256)
    entry = real_videos(1)[0]
    bright = np.zeros((8, 64, 64, 3), np.uint8)
    for index in range(8):
        bright[index, 20:30, 5 + 4 * index : 15 + 4 * index] = 255
    assert metric.measure(changed(entry, video=bright)) is True
    assert metric.measure(frozen(changed(entry, video=bright))) is False
    assert not metric.applies(changed(entry, fps=None))


def test_a_clip_model_tells_of_any_prompt(clip_model):
    named = ImageEncoderSettings(source=str(clip_model), revision=None, device="cpu")
    found = networks.load(SETTINGS.model_copy(update={"clip": named}))
    (features,), (metric,) = found.features, found.set_metrics
    entry = changed(real_videos(1)[0], prompt="red circle")
    row = features.measure(entry)
    assert (metric.name, row.shape) == ("text_p_clip", (16,))
    assert np.linalg.norm(row[8:]) == pytest.approx(1)
    longer = changed(entry, prompt="green circle " * 9)
    assert not np.allclose(features.measure(longer)[8:], row[8:])
    assert metric.protocol["by"].startswith("CLIP model ")


def test_a_metric_whose_network_nobody_named_is_not_applicable_and_says_which_key():
    chosen = measure.choose(["dynamics_raft_small", "text_p_clip"], SETTINGS)
    dimensions = summary.dimensions([], chosen, summary.common([]), SETTINGS)
    told = {one.name: (one.status, one.reason) for one in dimensions}
    assert told["dynamics_raft_small"] == ("not_applicable", "evaluation.raft_small is null: it names no network")
    assert told["text_p_clip"] == ("not_applicable", "evaluation.clip is null: it names no network")


def test_a_network_that_is_not_there_is_refused_at_the_door(tmp_path):
    nowhere = ImageEncoderSettings(source=str(tmp_path / "none"), revision=None, device="cpu")
    with pytest.raises(FileNotFoundError, match=r"evaluation\.clip\.source is"):
        measure.choose([], SETTINGS.model_copy(update={"clip": nowhere}))
