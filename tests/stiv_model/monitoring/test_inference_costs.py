"""What is counted of encoders and samplers without running them, against runs."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from flows.params import load_params
from stiv_model.diffusion.sampler import sample
from stiv_model.encoders.text import TextEncoder
from stiv_model.encoders.vae import load
from stiv_model.monitoring import inference_costs
from stiv_model.monitoring.costs import SampleShape, sample_cost
from stiv_model.monitoring.inference_costs import EncoderCost, VaeCost
from stiv_model.network.conditions import FrameCondition, Text
from stiv_model.network.transformer import StivTransformer

ROOT = Path(__file__).parents[3]
PARAMS = load_params(ROOT / "tests/params.yaml")


def flops(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def counted(sides=(32, 32)) -> EncoderCost:
    return inference_costs.encoder_cost(PARAMS.vae, PARAMS.text, sides, ROOT / "infra/encoders")


def test_what_is_counted_of_the_vae_is_what_it_executes():
    vae, cost = load(PARAMS.vae), counted().vae
    frames_TCHW = torch.zeros(3, 3, 32, 32)
    latents_TCHW = vae.encode(frames_TCHW)
    assert 3 * cost.encode_flops == flops(lambda: vae.encode(frames_TCHW)) > 0
    assert 3 * cost.decode_flops == flops(lambda: vae.decode(latents_TCHW)) > 0


def test_what_is_counted_of_the_text_encoder_is_what_its_matrix_products_execute():
    encoder = TextEncoder(PARAMS.text)
    assert flops(lambda: encoder.encode(["a", "b"], cut=False)) == pytest.approx(2 * counted().text_flops, rel=0.05)


@pytest.mark.parametrize("has_given", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"solver": "euler", "guidance_scale": 1.0, "guidance": "text"},
        {"solver": "heun_sde", "guidance": "joint"},
        {"solver": "heun", "guidance": "separate", "guidance_start": 0.5},
    ],
)
def test_the_model_is_called_as_often_as_is_counted(changes, has_given):
    sampler = PARAMS.sampler.model_copy(update={"steps": 4, "batch_guidance": False, "guidance_end": 1.0} | changes)
    model = StivTransformer(PARAMS.model, is_video=True).eval()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    text = Text(
        torch.zeros(1, 3, PARAMS.model.text_width),
        torch.ones(1, 3, dtype=torch.bool),
        torch.zeros(1, PARAMS.model.text_width),
    )
    noise = torch.zeros(1, 2, PARAMS.model.latent_channels, 4, 4)
    given = FrameCondition(noise, torch.tensor([[True, False]])) if has_given else None
    sample(model, noise, text, text, torch.zeros(1, 6), sampler, given, draw_noise=lambda: noise)
    assert inference_costs.model_passes(sampler, has_given) == len(calls)


def test_a_video_costs_the_model_s_passes_two_texts_and_its_frames():
    once = sample_cost(PARAMS.model, PARAMS.training, True, SampleShape(4, 4, 4, 24), 0.0).forward_flops
    encoders = EncoderCost(VaeCost(7, 11), 13)
    sampler = PARAMS.sampler.model_copy(
        update={"solver": "euler", "steps": 5, "guidance_scale": 1.0, "guidance": "text"}
    )
    assert inference_costs.video_cost(once, sampler, 4, encoders, 1) == 5 * once + 2 * 13 + 7 + 4 * 11


def test_an_encoder_of_a_hub_that_is_neither_here_nor_known_is_named_and_not_fetched(tmp_path):
    commit = "a" * 40
    with pytest.raises(FileNotFoundError, match=rf"vae\.source is someone/some-vae, .*not been fetched.*{commit}"):
        inference_costs.find_config("vae", "someone/some-vae", commit, tmp_path)
    note = {"source": "someone/some-vae", "revision": "b" * 40, "config": {}}
    (tmp_path / "someone--some-vae.json").write_text(json.dumps(note))
    with pytest.raises(FileNotFoundError, match="not been fetched"):  # it is of another commit
        inference_costs.find_config("vae", "someone/some-vae", commit, tmp_path)
    assert inference_costs.find_config("vae", "someone/some-vae", "b" * 40, tmp_path) == {}


def test_another_class_than_an_autoencoder_is_refused():
    with pytest.raises(ValueError, match="of the class UNet2DModel: takes AutoencoderKL"):
        inference_costs.vae_cost({"_class_name": "UNet2DModel"}, 32, 32)
