from pathlib import Path

import pytest

from flows.params import load_params
from tasks.latents.encode import Latents

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


def decides(device="cpu", vae=PARAMS.vae, text=PARAMS.text) -> dict:
    folders = Path("clips"), Path("captions")  # not read here
    return Latents("raw", *folders, PARAMS.latents, vae, text, PARAMS.sandbox, device=device).decides()


def test_latents_of_one_device_are_taken_over_on_another():
    assert decides("cuda") == decides("cpu")


@pytest.mark.parametrize("section", ["vae", "text"])
def test_latents_of_another_precision_are_made_again(section):
    short = getattr(PARAMS, section).model_copy(update={"precision": "bfloat16"})
    assert decides(**{section: short}) != decides()
