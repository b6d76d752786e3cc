from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tasks.score_clip_head import ClipHead, read_head
from tasks.settings import ClipHeadSettings

WIDTH = 12


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CLIP image tower of one layer, random, for pictures of 16 pixels."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=WIDTH,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def linear(outputs: int, inputs: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(outputs, inputs, generator=generator), torch.randn(outputs, generator=generator)


def saved(path: Path, **layers: tuple[Tensor, Tensor]) -> Path:
    save_file(
        {
            f"{name}.{part}": value
            for name, pair in layers.items()
            for part, value in zip(("weight", "bias"), pair, strict=True)
        },
        path,
    )
    return path


def settings(encoder: Path, head: Path) -> ClipHeadSettings:
    return ClipHeadSettings(kind="clip_head", source=str(encoder), revision=None, head=str(head), device="cpu")


def pictures(count: int, height: int = 16, width: int = 16) -> list[np.ndarray]:
    return list(np.random.default_rng(1).integers(0, 255, (count, height, width, 3), np.uint8))


def test_the_score_is_the_head_on_the_normalised_feature(tmp_path, encoder):
    weight, bias = linear(1, WIDTH, 0)
    scored = ClipHead(settings(encoder, saved(tmp_path / "head.safetensors", head=(weight, bias + 5)))).score(
        pictures(2)
    )
    model = CLIPVisionModelWithProjection.from_pretrained(encoder).eval()
    rgb_NCHW = torch.from_numpy(np.stack(pictures(2))[..., ::-1].copy()).permute(0, 3, 1, 2) / 255  # noqa: N806
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        features = model(pixel_values=(rgb_NCHW - mean) / deviation).image_embeds
    expected = (features / features.norm(dim=-1, keepdim=True)) @ weight.T + bias + 5
    assert scored == pytest.approx(expected.mean().item(), rel=1e-5)


def test_several_layers_follow_each_other_by_the_numbers_in_their_names(tmp_path):
    first, second = linear(3, WIDTH, 0), linear(1, 3, 1)
    path = saved(tmp_path / "head.safetensors", **{"layers.10": second, "layers.2": first})
    assert [tuple(weight.shape) for weight, _ in read_head(path, WIDTH)] == [(3, WIDTH), (1, 3)]


@pytest.mark.parametrize(("bias", "bound"), [(-50.0, 0), (50.0, 10)])
def test_the_score_stays_within_0_and_10(tmp_path, encoder, bias, bound):
    head = saved(tmp_path / "head.safetensors", head=(torch.zeros(1, WIDTH), torch.tensor([bias])))
    assert ClipHead(settings(encoder, head)).score(pictures(1)) == bound


def test_the_middle_of_a_wide_picture_is_what_counts(tmp_path, encoder):
    scorer = ClipHead(settings(encoder, saved(tmp_path / "head.safetensors", head=linear(1, WIDTH, 0))))
    (wide,) = pictures(1, 16, 32)
    assert scorer.score([wide]) == pytest.approx(scorer.score([wide[:, 8:24]]), rel=1e-4)


def test_the_name_changes_with_the_weights(tmp_path, encoder):
    names = {
        ClipHead(settings(encoder, saved(tmp_path / "head.safetensors", head=linear(1, WIDTH, seed)))).name
        for seed in (0, 1)
    }
    assert len(names) == 2


@pytest.mark.parametrize(
    "layers",
    [{"head": linear(1, 7, 0)}, {"head": linear(2, WIDTH, 0)}, {"a.1": linear(3, WIDTH, 0), "a.2": linear(1, 4, 0)}],
)
def test_a_head_of_another_width_is_refused(tmp_path, layers):
    with pytest.raises(ValueError, match=r"expected linear layers from the encoder's 12 features to 1"):
        read_head(saved(tmp_path / "head.safetensors", **layers), WIDTH)


def test_a_file_that_is_no_head_is_refused(tmp_path):
    path = tmp_path / "head.safetensors"
    with pytest.raises(FileNotFoundError, match=r"scores\.aesthetic\.head is .*no such file"):
        read_head(path, WIDTH)
    path.write_bytes(b"pickled")
    with pytest.raises(ValueError, match="no safetensors file"):
        read_head(path, WIDTH)
    save_file({"weight": torch.ones(1, WIDTH)}, path)
    with pytest.raises(ValueError, match="expected weight and bias"):
        read_head(path, WIDTH)


def test_an_encoder_without_its_weights_is_refused(tmp_path, encoder):
    broken = tmp_path / "broken"
    model = CLIPVisionModelWithProjection.from_pretrained(encoder)
    model.save_pretrained(broken, state_dict={k: v for k, v in model.state_dict().items() if "projection" not in k})
    with pytest.raises(ValueError, match="does not hold the weights of this model"):
        ClipHead(settings(broken, saved(tmp_path / "head.safetensors", head=linear(1, WIDTH, 0))))


def test_a_hub_name_without_a_commit_is_refused(tmp_path):
    asked = ClipHeadSettings(
        kind="clip_head", source="openai/clip-vit-large-patch14", revision=None, head=str(tmp_path), device="cpu"
    )
    with pytest.raises(ValueError, match=r"scores\.aesthetic\.revision is null"):
        ClipHead(asked)
