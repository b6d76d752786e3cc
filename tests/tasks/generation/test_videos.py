from pathlib import Path

import numpy as np
import pytest
import torch

from flows.params import load_params
from stiv_model.network.transformer import StivTransformer
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.weights import files
from tasks.generation.videos import load, make_videos

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video model of no training, none of whose weights is zero."""
    torch.manual_seed(0)
    model = StivTransformer(PARAMS.model, is_video=True)
    weights = {name: weight + 0.1 * torch.randn_like(weight) for name, weight in model.state_dict().items()}
    folder = tmp_path_factory.mktemp("checkpoint")
    files.save(folder, weights.items(), PARAMS.model, is_video=True)
    return folder


def opened(checkpoint: Path, precision="float32", device="cpu") -> StivPipeline:
    sampler = PARAMS.sampler.model_copy(update={"steps": 2})
    return load(checkpoint, PARAMS.vae, PARAMS.text, PARAMS.latents, sampler, precision, device)


def test_the_model_samples_in_its_own_precision_and_the_encoders_in_theirs(checkpoint):
    short, whole = opened(checkpoint, "bfloat16"), opened(checkpoint)
    assert [short.components[name].dtype for name in ("transformer", "vae", "text_encoder")] == [
        torch.bfloat16,
        torch.float32,
        torch.float32,
    ]
    made, exact = (make_videos(pipe, ["a red circle"], [3], "none", None)[0] for pipe in (short, whole))
    assert made.shape == exact.shape and made.dtype == np.uint8
    difference = np.abs(made.astype(float) - exact.astype(float))
    assert 0 < difference.mean() < 8, "levels of 255"


def test_every_part_goes_to_the_device_that_is_named(checkpoint):
    pipe = opened(checkpoint, device="meta")  # a device with shapes and no values
    places = {
        weight.device.type for part in (pipe.vae, pipe.text_encoder, pipe.transformer) for weight in part.parameters()
    }
    assert places == {pipe._execution_device.type} == {"meta"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(checkpoint):
    with pytest.raises(ValueError, match=r"^devices\.sampling is cuda, .*set it to cpu"):
        opened(checkpoint, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_video_of_the_cpu(checkpoint):
    made, exact = (
        make_videos(opened(checkpoint, device=device), ["a red circle"], [3], "none", None)[0].astype(int)
        for device in ("cuda", "cpu")
    )
    assert np.abs(made - exact).max() <= 2, "levels of 255"
