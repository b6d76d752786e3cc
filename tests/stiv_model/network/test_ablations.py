"""Every row of the paper's ablations is a change of settings: it builds, trains ten steps, and samples."""

import importlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from flows.params import Params, load_params, section
from stiv_model.diffusion.frame_conditioning import clean_frame_mask, null_image
from stiv_model.diffusion.sampler import sample
from stiv_model.latents.dataset import Batch
from stiv_model.network.conditions import FrameCondition, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import ModelSettings, RecipeSettings, TrainingSettings
from stiv_model.training.loss import draw, losses

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs/model.md").read_text()
PARAMS = load_params(ROOT / "tests/params.yaml")
FRAMES, SIDE, BATCH, STEPS = 8, 8, 4, 10
LEARNED = {"kind": "learned", "rows": 4, "columns": 4, "num_temporal": 4, "std": 0.5}

Changes = dict[str, dict[str, Any]]
ROWS: dict[str, Changes] = {
    "as the paper has it": {},
    "qk_norm off": {"model": {"qk_norm": False}},
    "sandwich_norm off": {"model": {"sandwich_norm": False}},
    "cross_attention_norm on": {"model": {"cross_attention_norm": True}},
    "condition_norm off": {"model": {"condition_norm": False}},
    "adaln per_layer": {"model": {"adaln": "per_layer"}},
    "micro_conditions off": {"model": {"micro_conditions": False}},
    "learned positions": {"model": {"positions": LEARNED}},
    "temporal_gain 0.2": {"model": {"temporal_gain": 0.2}},
    "temporal_patch 1": {"model": {"temporal_patch": 1}},
    "temporal_patch 4": {"model": {"temporal_patch": 4}},
    "causal_time": {"model": {"causal_time": True}},
    "temporal_modulation": {"model": {"temporal_modulation": True}},
    "temporal_modulation, adaln per_layer": {"model": {"temporal_modulation": True, "adaln": "per_layer"}},
    "image_condition cross_attention": {"model": {"image_condition": "cross_attention"}},
    "image_condition both": {"model": {"image_condition": "both"}},
    "mask_ratio 0": {"recipe": {"mask_ratio": 0.0}},
    "mask_ratio 0.75": {"recipe": {"mask_ratio": 0.75}},
    "clean_frames none": {"recipe": {"clean_frames": "none"}},
    "clean_frames first_four": {"recipe": {"clean_frames": "first_four"}},
    "clean_frames first_and_last": {"recipe": {"clean_frames": "first_and_last"}},
    "clean_frames every_second": {"recipe": {"clean_frames": "every_second"}},
    "clean_frames views": {"recipe": {"clean_frames": "views"}},
    "clean_frames 1 and 4": {"recipe": {"clean_frames": (1, 4)}},
    "an image model": {"recipe": {"frames": 1, "clean_frames": "none"}},
    "temporal_mask_ratio 0.5": {"training": {"temporal_mask_ratio": 0.5}},
    "clean_frame_loss on": {"training": {"clean_frame_loss": True}},
    "clean_frame_loss on, image in cross-attention": {
        "training": {"clean_frame_loss": True},
        "model": {"image_condition": "cross_attention"},
    },
    "timestep_density uniform": {"training": {"timestep_density": "uniform"}},
    "timestep_shift 2": {"training": {"timestep_shift": 2.0}},
}
UNUSED = {"mask_ratio 0": {"mask_token"}}
"""Parameters that a setting leaves in place without use."""


class Case(NamedTuple):
    model: ModelSettings
    recipe: RecipeSettings
    training: TrainingSettings


def changed(changes: Changes) -> Case:
    """Return the settings of a row, as params.yaml would state them."""
    model = PARAMS.model.model_dump() | changes.get("model", {})
    recipe = PARAMS.train["stiv"].model_dump() | {"frames": FRAMES} | changes.get("recipe", {})
    training = PARAMS.training.model_dump() | changes.get("training", {})
    return Case(
        ModelSettings.model_validate(model),
        RecipeSettings.model_validate(recipe),
        TrainingSettings.model_validate(training),
    )


def make_batch(model: ModelSettings) -> Batch:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(BATCH, FRAMES, model.latent_channels, SIDE, SIDE, generator=generator)
    mask = torch.arange(6) < torch.tensor([[2], [3], [6], [4]])
    tokens = torch.randn(BATCH, 6, model.text_width, generator=generator)
    micro = torch.tensor([[128.0, 128.0, 0.0, 0.0, 3.0, FRAMES]]).repeat(BATCH, 1)
    return Batch([], latents, Text(tokens, mask, tokens.mean(1)), micro)


def build(case: Case) -> StivTransformer:
    torch.manual_seed(0)
    return StivTransformer(case.model, is_video=case.recipe.frames > 1)


def train(model: StivTransformer, batch: Batch, case: Case) -> list[float]:
    """Train as `stiv_model.training.train` does, without DeepSpeed, on the same draws; return the loss of each step."""
    null_text = Text(*(part[:1] for part in batch.text))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    places, curve = (SIDE // model.settings.spatial_patch) ** 2, []
    for _ in range(STEPS):
        draws = draw(list(range(BATCH)), tuple(batch.latents_BFCHW.shape[1:]), places, case.recipe, case.training)
        value = losses(model, batch, draws, null_text, case.recipe, case.training).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        curve.append(value.item())
    return curve


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small wait longer for a second thread than they are computed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def losses_of_the_paper() -> list[float]:
    one = changed({})
    return train(build(one), make_batch(one.model), one)


@pytest.mark.parametrize(("name", "changes"), ROWS.items(), ids=ROWS)
def test_every_ablation_builds_trains_samples_and_makes_a_difference(name, changes, losses_of_the_paper):
    one = changed(changes)
    model, batch, frames = build(one), make_batch(one.model), one.recipe.frames
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    curve = train(model, batch, one)
    assert torch.tensor(curve).isfinite().all()
    assert curve[-1] < curve[0]  # of the same draws
    assert (curve == losses_of_the_paper) == (changes == {})
    unchanged = {name for name, weight in model.state_dict().items() if torch.equal(weight, start[name])}
    assert unchanged == UNUSED.get(name, set())

    noise = torch.randn(BATCH, frames, *batch.latents_BFCHW.shape[2:])
    given = FrameCondition(
        batch.latents_BFCHW[:, :frames], clean_frame_mask(one.recipe.clean_frames, frames).expand(BATCH, -1)
    )
    null_text, null = Text(*(part[:1].expand_as(part) for part in batch.text)), null_image(one.recipe.clean_frames)
    made = sample(model, noise, batch.text, null_text, batch.micro_BM, PARAMS.sampler, given, null)
    assert made.shape == noise.shape
    assert made.isfinite().all()
    assert torch.equal(made[given.is_clean_BF], given.latents_BFCHW[given.is_clean_BF])
    assert not torch.equal(made[~given.is_clean_BF], noise[~given.is_clean_BF])


def test_every_name_that_the_document_links_exists():
    links = re.findall(r"\[`([\w.]+)`\]\(\.\./stiv_model/([\w/]+)\.py\)", DOCUMENT)
    assert len(links) > 20
    for name, module in links:
        found = importlib.import_module(f"stiv_model.{module.replace('/', '.')}")
        for part in name.split("."):
            assert hasattr(found, part), f"stiv_model/{module}.py has no {name}"
            found = getattr(found, part)


def test_every_setting_that_the_document_names_exists():
    sections = "|".join(type(PARAMS).model_fields)
    named = set(re.findall(rf"`((?:{sections})\.[\w.*]+)`", DOCUMENT))
    assert len(named) > 20
    either = [PARAMS, load_params(ROOT / "params.yaml")]  # of the two kinds of positions, each has one
    assert {params.model.positions.kind for params in either} == {"rotary", "learned"}
    for name in named:
        assert any(has(params, name.replace("*", "stiv")) for params in either), name


def has(params: Params, name: str) -> bool:
    try:
        section(params, name)
    except ValueError:
        return False
    return True
