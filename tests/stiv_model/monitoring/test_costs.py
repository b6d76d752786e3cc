"""What is counted without running the model, against formulas and against runs."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from stiv_model.monitoring import costs
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.network.masking import TokenMask
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import LearnedSettings, Mode

SHAPE = costs.SampleShape(frames=4, rows=16, columns=16, text_tokens=7)
LEARNED = LearnedSettings(kind="learned", rows=8, columns=8, num_temporal=2, std=0.5)
VARIANTS = [
    {},
    {"unmasked_depth": 0, "qk_norm": False},
    {"adaln": "per_layer", "temporal_modulation": True},
    {"sandwich_norm": False, "cross_attention_norm": True, "positions": LEARNED},
]


def forward(model: StivTransformer, mask_ratio: float) -> torch.Tensor:
    text = Text(
        torch.randn(1, SHAPE.text_tokens, model.settings.text_width),
        torch.ones(1, SHAPE.text_tokens, dtype=torch.bool),
        torch.randn(1, model.settings.text_width),
    )
    x = torch.randn(1, SHAPE.frames, model.settings.latent_channels, SHAPE.rows, SHAPE.columns)
    num_spatial = SHAPE.rows * SHAPE.columns // model.settings.spatial_patch**2
    kept = TokenMask(torch.arange(round(num_spatial * (1 - mask_ratio)))[None] if mask_ratio else None, None)
    return model(x, torch.rand(1), text, torch.rand(1, len(MICRO_CONDITIONS)), token_mask=kept)


def alive_after_forward(settings, mask_ratio: float, is_checkpointed: bool = False) -> int:
    """Return what torch's allocator handed out in a run of forward and has not got back, without the result."""
    model = StivTransformer(settings, is_video=True)
    model.activation_checkpointing = is_checkpointed
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        out = forward(model, mask_ratio)
    random_states = torch.get_rng_state().nbytes * (settings.depth + settings.unmasked_depth)  # kept by checkpointing
    allocated = sum(event.self_cpu_memory_usage for event in seen.events())
    return allocated - out.nbytes - (random_states if is_checkpointed else 0)


@pytest.mark.parametrize("mask_ratio", [0.0, 0.5])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_activations_are_what_a_run_keeps_allocated(deep, training, changes, mask_ratio):
    settings = deep.model_copy(update=changes)
    counted = costs.sample_cost(settings, training, True, SHAPE, mask_ratio)
    assert counted.activation_bytes == alive_after_forward(settings, mask_ratio)


@pytest.mark.parametrize("mask_ratio", [0.0, 0.5])
def test_checkpointed_activations_are_what_a_run_keeps_and_one_block_executed_again(deep, training, mask_ratio):
    more = deep.model_copy(update={"unmasked_depth": 3})
    one_block = alive_after_forward(more, mask_ratio) - alive_after_forward(deep, mask_ratio)
    tokens = SHAPE.frames * SHAPE.rows * SHAPE.columns // (deep.temporal_patch * deep.spatial_patch**2)
    wanted = alive_after_forward(deep, mask_ratio, True) + one_block - 4 * tokens * deep.width
    counted = costs.sample_cost(deep, training, True, SHAPE, mask_ratio).checkpointed_activation_bytes
    assert counted == pytest.approx(wanted, rel=0.002)


@pytest.mark.parametrize("mask_ratio", [0.0, 0.5])
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_flops_are_those_that_a_run_executes(deep, training, is_checkpointed, mask_ratio):
    aten = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *a, **b: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda dy, q, k, v, *a, **b: sdpa_backward_flop_count(dy, q, k, v)
        ),
    }
    model = StivTransformer(deep, is_video=True)
    model.activation_checkpointing = is_checkpointed
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        forward(model, mask_ratio).sum().backward()
    counted = costs.sample_cost(deep, training, True, SHAPE, mask_ratio)
    wanted = counted.checkpointed_training_flops if is_checkpointed else counted.training_flops
    assert counter.get_total_flops() == wanted


def formula(settings, is_video: bool, mask_ratio: float) -> tuple[float, float]:
    """Return FLOPs of forward and of forward and backward, by hand: 2 per weight and token, 4 d per pair attended."""
    d, text = settings.width, SHAPE.text_tokens
    num_spatial = SHAPE.rows * SHAPE.columns // settings.spatial_patch**2
    num_temporal = SHAPE.frames // settings.temporal_patch if is_video else SHAPE.frames
    patch = settings.latent_channels * settings.spatial_patch**2 * (settings.temporal_patch if is_video else 1)

    def block(num_spatial: float) -> tuple[float, float]:
        tokens = num_spatial * num_temporal
        per_token = (4 + 2 + 2 * settings.ffn_ratio + (4 if is_video else 0)) * d**2
        pairs = num_temporal * num_spatial**2 + tokens * text + (num_spatial * num_temporal**2 if is_video else 0)
        return 2 * tokens * per_token + 2 * text * 2 * d**2, 4 * d * pairs

    blocks = [block(num_spatial * (1 - mask_ratio))] * settings.depth + [block(num_spatial)] * settings.unmasked_depth
    linear, attention = (sum(part) for part in zip(*blocks, strict=True))
    sinusoids = 256 * (1 + len(MICRO_CONDITIONS))
    first = (
        2 * d * (num_spatial * num_temporal * patch + (text + 1) * settings.text_width + sinusoids)
    )  # of what needs no gradient
    others = 2 * d * (num_spatial * num_temporal * patch + (2 + 6 + 2) * d)
    whole = linear + attention + first + others
    return whole, whole + first + 2 * (linear + others) + 2.5 * attention


@pytest.mark.parametrize("mask_ratio", [0.0, 0.5])
@pytest.mark.parametrize("is_video", [False, True], ids=["image", "video"])
def test_flops_agree_with_a_formula(deep, training, is_video, mask_ratio):
    counted = costs.sample_cost(deep, training, is_video, SHAPE, mask_ratio)
    forward_flops, training_flops = formula(deep, is_video, mask_ratio)
    assert counted.forward_flops == forward_flops
    assert counted.training_flops == pytest.approx(training_flops, rel=0.001)  # QK-norm's gradient has products too


def test_masking_half_of_the_places_halves_the_main_blocks(deep, training):
    def main_block(mask_ratio: float) -> int:
        few, more = (deep.model_copy(update={"depth": depth, "width": 256, "heads": 4}) for depth in (1, 2))
        first, second = (
            costs.sample_cost(some, training, True, SHAPE, mask_ratio).training_flops for some in (few, more)
        )
        return second - first

    assert main_block(0.5) / main_block(0.0) == pytest.approx(0.5, abs=0.02)


def test_a_sample_of_several_lengths_costs_their_mean_and_needs_room_for_the_longest(deep, training, recipe):
    modes = (
        Mode(clean_frames="first", stride=1, weight=1.0),
        Mode(clean_frames="first", stride=1, weight=3.0, frames=2),
    )
    recipe = recipe.model_copy(update={"frames": 4, "clean_frames": modes})
    long, short = (
        costs.sample_cost(deep, training, True, SHAPE._replace(frames=frames), recipe.mask_ratio) for frames in (4, 2)
    )
    found = costs.recipe_cost(deep, training, recipe, SHAPE)
    assert found.tokens == (long.tokens + 3 * short.tokens) / 4
    assert found.training_flops == pytest.approx((long.training_flops + 3 * short.training_flops) / 4, abs=1)
    assert found.activation_bytes == long.activation_bytes > short.activation_bytes


def test_half_precision_halves_the_activations(deep, training):
    half = training.model_copy(update={"precision": "bfloat16"})
    whole, halved = (costs.sample_cost(deep, how, True, SHAPE, 0.5).activation_bytes for how in (training, half))
    assert halved / whole == pytest.approx(0.5, abs=0.08)  # norms and attention keep a float32 per row


def test_every_parameter_has_one_place(deep):
    for is_video in (False, True):
        model = costs.build_on_meta(deep.model_copy(update={"adaln": "per_layer"}), is_video)
        assert costs.count_parameters(model).total() == sum(parameter.numel() for parameter in model.parameters())


def test_frames_that_cannot_be_cut_into_patches_are_refused(deep, training):
    with pytest.raises(ValueError, match=r"\b5 latent frames .*model\.temporal_patch = 2"):
        costs.sample_cost(deep, training, True, SHAPE._replace(frames=5), 0.0)
