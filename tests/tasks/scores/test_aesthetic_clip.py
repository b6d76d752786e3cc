from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from tasks.scores.aesthetic_clip import ClipHead, read_head
from tasks.scores.clip_encoder import ClipEncoder
from tasks.scores.settings import ClipHeadSettings, ImageEncoderSettings

WIDTH = 12


@pytest.fixture(scope="module")
def encoder(clip_folder: Path) -> ClipEncoder:
    return ClipEncoder("scores.aesthetic", ImageEncoderSettings(source=str(clip_folder), revision=None, device="cpu"))


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


def load(encoder: ClipEncoder, head: Path) -> ClipHead:
    asked = ClipHeadSettings(kind="clip_head", source="any", revision=None, head=str(head), device="cpu")
    return ClipHead(asked, encoder)


def features(count: int) -> Tensor:
    return functional.normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1)), dim=-1)


def test_the_score_is_the_mean_of_the_head_over_the_features(tmp_path, encoder):
    weight, bias = linear(1, WIDTH, 0)
    scorer = load(encoder, saved(tmp_path / "head.safetensors", head=(weight, bias + 5)))
    expected = (features(2) @ weight.T + bias + 5).mean()
    assert scorer.score(features(2)) == pytest.approx(expected.item(), rel=1e-5)


def test_several_layers_follow_each_other_by_the_numbers_in_their_names(tmp_path):
    first, second = linear(3, WIDTH, 0), linear(1, 3, 1)
    path = saved(tmp_path / "head.safetensors", **{"layers.10": second, "layers.2": first})
    assert [tuple(weight.shape) for weight, _ in read_head(path, WIDTH)] == [(3, WIDTH), (1, 3)]


@pytest.mark.parametrize(("bias", "bound"), [(-50.0, 0), (50.0, 10)])
def test_the_score_stays_within_0_and_10(tmp_path, encoder, bias, bound):
    head = saved(tmp_path / "head.safetensors", head=(torch.zeros(1, WIDTH), torch.tensor([bias])))
    assert load(encoder, head).score(features(1)) == bound


def test_the_name_changes_with_the_weights(tmp_path, encoder):
    names = {load(encoder, saved(tmp_path / "head.safetensors", head=linear(1, WIDTH, seed))).name for seed in (0, 1)}
    assert len(names) == 2


@pytest.mark.parametrize(
    "layers",
    [{"head": linear(1, 7, 0)}, {"head": linear(2, WIDTH, 0)}, {"a.1": linear(3, WIDTH, 0), "a.2": linear(1, 4, 0)}],
)
def test_a_head_of_another_width_is_refused(tmp_path, layers):
    with pytest.raises(ValueError, match=r"scores\.aesthetic\.head is .*\b12 features to 1\b"):
        read_head(saved(tmp_path / "head.safetensors", **layers), WIDTH)


def test_a_file_that_is_no_head_is_refused(tmp_path):
    path = tmp_path / "head.safetensors"
    with pytest.raises(FileNotFoundError, match=rf"scores\.aesthetic\.head is {path}\b"):
        read_head(path, WIDTH)
    path.write_bytes(b"pickled")
    with pytest.raises(ValueError, match=rf"scores\.aesthetic\.head is {path}, .*safetensors"):
        read_head(path, WIDTH)
    save_file({"weight": torch.ones(1, WIDTH)}, path)
    with pytest.raises(ValueError, match=rf"scores\.aesthetic\.head is {path}, .*\['weight'\]"):
        read_head(path, WIDTH)
