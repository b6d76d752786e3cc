import shutil

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tasks.scores.clip_encoder import ClipEncoder
from tasks.scores.settings import ImageEncoderSettings


def load(folder) -> ClipEncoder:
    return ClipEncoder("scores.embedding", ImageEncoderSettings(source=str(folder), revision=None, device="cpu"))


def pictures(count: int, height: int = 16, width: int = 16) -> list[np.ndarray]:
    return list(np.random.default_rng(1).integers(0, 255, (count, height, width, 3), np.uint8))


def test_a_feature_is_the_models_own_of_length_1(clip_folder):
    model = CLIPVisionModelWithProjection.from_pretrained(clip_folder).eval()
    rgb_NCHW = torch.from_numpy(np.stack(pictures(2))[..., ::-1].copy()).permute(0, 3, 1, 2) / 255  # noqa: N806
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        expected = model(pixel_values=(rgb_NCHW - mean) / deviation).image_embeds
    encoder = load(clip_folder)
    assert encoder.width == expected.shape[1]
    torch.testing.assert_close(encoder.features(pictures(2)), expected / expected.norm(dim=-1, keepdim=True))


def test_the_middle_of_a_wide_picture_is_what_counts(clip_folder):
    encoder = load(clip_folder)
    (wide,) = pictures(1, 16, 32)
    torch.testing.assert_close(encoder.features([wide]), encoder.features([wide[:, 8:24]]))


def test_the_digest_is_of_the_files_and_not_of_their_place(clip_folder, tmp_path):
    moved = shutil.copytree(clip_folder, tmp_path / "moved")
    one, other = load(clip_folder), load(moved)
    assert one.digest == other.digest
    assert len(one.digest) == 16
    torch.manual_seed(1)
    config = CLIPVisionConfig.from_pretrained(clip_folder)
    CLIPVisionModelWithProjection(config).save_pretrained(moved)
    assert load(moved).digest != one.digest


def test_another_activation_is_another_encoder(clip_folder, tmp_path):
    """It stands in the config alone: the weights are the same."""
    moved = shutil.copytree(clip_folder, tmp_path / "moved")
    config = CLIPVisionConfig.from_pretrained(clip_folder)
    config.hidden_act = "gelu"
    config.save_pretrained(moved)
    assert load(moved).digest != load(clip_folder).digest


def test_an_encoder_without_its_weights_is_refused(clip_folder, tmp_path):
    model = CLIPVisionModelWithProjection.from_pretrained(clip_folder)
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in model.state_dict().items() if "projection" not in k})
    with pytest.raises(ValueError, match=rf"{tmp_path}.*projection"):
        load(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(clip_folder):
    asked = ImageEncoderSettings(source=str(clip_folder), revision=None, device="cuda")
    with pytest.raises(ValueError, match=r"scores\.embedding\.device is cuda, .*\bcpu\b"):
        ClipEncoder("scores.embedding", asked)


def test_a_hub_name_without_a_commit_is_refused_at_the_place_of_its_setting():
    with pytest.raises(ValueError, match=r"scores\.embedding\.revision is null"):
        load("openai/clip-vit-large-patch14")
