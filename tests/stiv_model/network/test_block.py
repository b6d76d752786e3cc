"""The network is the paper's: equal to a reference in plain loops, with the gradients that calculus gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call

from flows.params import load_params
from stiv_model.diffusion.frame_conditioning import clean_frame_mask
from stiv_model.latents.dataset import Batch
from stiv_model.network.conditions import MICRO_CONDITIONS, FrameCondition, Text
from stiv_model.network.masking import TokenMask, kept_weight, sample_kept
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import LearnedSettings, RecipeSettings, RotarySettings
from stiv_model.training.loss import Draws, draw, losses
from tests.stiv_model import reference

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
TOLERANCE = {"atol": 1e-10, "rtol": 1e-10}
BATCH, FRAMES, HEIGHT, WIDTH, TOKENS, TEXT_WIDTH = 2, 4, 4, 6, 4, 6
PLACES, COLUMNS = 6, 3  # with patches of 2
ABLATIONS = {
    "as the paper has it": {},
    "no qk_norm": {"qk_norm": False},
    "no sandwich_norm": {"sandwich_norm": False},
    "cross_attention_norm": {"cross_attention_norm": True},
    "no condition_norm": {"condition_norm": False},
    "no micro_conditions": {"micro_conditions": False},
    "adaln per_layer": {"adaln": "per_layer"},
    "temporal_modulation": {"temporal_modulation": True},
    "temporal_modulation per_layer": {"temporal_modulation": True, "adaln": "per_layer"},
    "causal_time": {"causal_time": True},
    "temporal_patch 1": {"temporal_patch": 1},
    "learned positions": {"positions": LearnedSettings(kind="learned", rows=3, columns=4, num_temporal=3, std=0.5)},
    "interpolated positions": {
        "positions": RotarySettings(kind="rotary", base=100.0, spatial_scale=0.5, temporal_scale=0.25)
    },
    "given frames in cross-attention": {"image_condition": "both"},
}
MASKED_IN_TIME = ("as the paper has it", "learned positions")
IN_A_BLOCK = {name: ABLATIONS[name] for name in ABLATIONS if not name.startswith(("no condition", "no micro", "given"))}
WHOLE = {
    name: ABLATIONS[name] for name in ("as the paper has it", "learned positions", "given frames in cross-attention")
}
IN_TIME = {"temporal_modulation", "temporal_modulation per_layer", "causal_time", "temporal_patch 1"}
KEPT = {
    "all": TokenMask(None, None),
    "places": TokenMask(torch.tensor([[1, 2, 5], [0, 3, 4]]), None),
    "places and moments": TokenMask(torch.tensor([[1, 2, 5], [0, 3, 4]]), torch.tensor([[1], [0]])),
}
CASES = (
    {f"{name}, video": (changes, True, KEPT["places"]) for name, changes in ABLATIONS.items()}
    | {f"{name}, image": (changes, False, KEPT["places"]) for name, changes in ABLATIONS.items() if name not in IN_TIME}
    | {f"all tokens, {kind}": ({}, kind == "video", KEPT["all"]) for kind in ("image", "video")}
    | {f"moments too, {name}": (ABLATIONS[name], True, KEPT["places and moments"]) for name in MASKED_IN_TIME}
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small wait longer for a second thread than they are computed, fifty times longer when it is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def build(settings):
    """Build a float64 model all of whose weights are random and none small."""

    def build(is_video: bool, **changes) -> StivTransformer:
        torch.manual_seed(5)
        tiny = {"width": 16, "depth": 1, "unmasked_depth": 1, "latent_channels": 3, "text_width": TEXT_WIDTH}
        model = StivTransformer(settings.model_copy(update=tiny | changes), is_video).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.5 * torch.randn_like(parameter))
        return model

    return build


@pytest.fixture
def arguments():
    """Noisy latents, times, text with padding, micro-conditions and given frames, in float64."""
    torch.manual_seed(6)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    text = Text(
        torch.randn(BATCH, TOKENS, TEXT_WIDTH, dtype=torch.float64),
        mask,
        torch.randn(BATCH, TEXT_WIDTH, dtype=torch.float64),
    )
    x, clean = torch.randn(2, BATCH, FRAMES, 3, HEIGHT, WIDTH, dtype=torch.float64)
    micro = 100 * torch.rand(BATCH, len(MICRO_CONDITIONS), dtype=torch.float64)
    given = FrameCondition(clean, torch.tensor([[True, False, False, False], [True, False, False, True]]))
    return x, torch.rand(BATCH, dtype=torch.float64), text, micro, given


def samples(arguments, kept: TokenMask) -> list[reference.Sample]:
    x, time, text, micro, given = arguments
    return [
        reference.Sample(
            x[b].numpy(),
            time[b].item(),
            text.tokens_BLE[b].numpy(),
            text.mask_BL[b].numpy(),
            text.pooled_BE[b].numpy(),
            micro[b].numpy(),
            given.latents_BFCHW[b].numpy(),
            given.is_clean_BF[b].numpy(),
            *(None if chosen is None else chosen[b].tolist() for chosen in kept),
        )
        for b in range(BATCH)
    ]


def weights(model) -> reference.Weights:
    return {name: weight.numpy() for name, weight in model.state_dict().items()}


def watch(module) -> list:
    """Return a list that gets the arguments and the result of every call of a module."""
    calls: list = []
    module.register_forward_hook(lambda module, given, out: calls.append((given, out)))
    return calls


@pytest.mark.parametrize(("changes", "is_video", "kept"), CASES.values(), ids=CASES)
@torch.no_grad()
def test_block_and_transformer_equal_the_reference(build, arguments, changes, is_video, kept):
    model = build(is_video, **changes)
    calls = watch(model.main_blocks[0])
    velocity = model(*arguments, token_mask=kept)
    ((x_BTSD, *_), out_BTSD), settings = calls[0], model.settings
    for b, sample in enumerate(samples(arguments, kept)):
        places = list(range(PLACES)) if sample.places is None else sample.places
        one = reference.block(
            reference.under(weights(model), "main_blocks.0"),
            reference.shared_by_blocks(weights(model), settings, is_video, sample),
            x_BTSD[b].numpy(),
            [divmod(place, COLUMNS) for place in places],
            list(range(x_BTSD.shape[1])) if sample.moments is None else sample.moments,
        )
        torch.testing.assert_close(out_BTSD[b], torch.from_numpy(one), **TOLERANCE)
        whole = reference.transformer(weights(model), settings, is_video, sample)
        torch.testing.assert_close(velocity[b], torch.from_numpy(whole), **TOLERANCE)


@pytest.mark.parametrize("changes", IN_A_BLOCK.values(), ids=IN_A_BLOCK)
def test_gradients_of_the_block_are_those_of_calculus(build, arguments, changes):
    model = build(True, **changes)
    calls = watch(model.main_blocks[0])
    model(*arguments, token_mask=KEPT["places"])
    block, ((x, conditions, positions), _) = model.main_blocks[0], calls[0]
    names, parameters = zip(*block.named_parameters(), strict=True)
    shared = [part for modulation in conditions.modulation or () for part in modulation]

    def run(x, context, singleton, *rest):
        own = dict(zip(names, rest[: len(names)], strict=True))
        parts = iter(rest[len(names) :])
        modulation = conditions.modulation and tuple(
            type(one)(*(next(parts) for _ in one)) for one in conditions.modulation
        )
        own_conditions = conditions._replace(context_BLD=context, singleton_BD=singleton, modulation=modulation)
        return functional_call(block, own, (x, own_conditions, positions))

    inputs = [x, conditions.context_BLD, conditions.singleton_BD, *parameters, *shared]
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("changes", WHOLE.values(), ids=WHOLE)
def test_gradients_of_the_transformer_are_those_of_calculus(build, arguments, changes):
    model = build(True, **changes)
    _, time, text, micro, given = arguments
    names, parameters = zip(*model.named_parameters(), strict=True)

    def run(x, clean, tokens, pooled, *parameters):
        given_inputs = (
            x,
            time,
            Text(tokens, text.mask_BL, pooled),
            micro,
            FrameCondition(clean, given.is_clean_BF),
            KEPT["places"],
        )
        return functional_call(model, dict(zip(names, parameters, strict=True)), given_inputs)

    inputs = [arguments[0], given.latents_BFCHW, text.tokens_BLE, text.pooled_BE, *parameters]
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("is_causal", [False, True], ids=["bidirectional", "causal"])
@torch.no_grad()
def test_factorised_attention_equals_full_attention_under_its_mask(build, arguments, is_causal):
    model = build(True, causal_time=is_causal)
    block = model.main_blocks[0]
    calls = {axis: watch(getattr(block, f"{axis}_attention")) for axis in ("spatial", "temporal")}
    model(*arguments)
    where = list(np.ndindex(FRAMES // 2, PLACES))
    places, moments = [divmod(place, COLUMNS) for _, place in where], [moment for moment, _ in where]
    turns = {
        "spatial": reference.space_turns(model.settings, places),
        "temporal": reference.time_turns(model.settings, moments),
    }
    masks = {
        "spatial": lambda i, j: moments[i] == moments[j],
        "temporal": lambda i, j: places[i] == places[j] and (moments[j] <= moments[i] or not is_causal),
    }
    for axis, (((x_BTSD, *_), out_BTSD), *_) in calls.items():
        layer = reference.under(weights(block), f"{axis}_attention")
        for x, out in zip(x_BTSD.flatten(1, 2).numpy(), out_BTSD.flatten(1, 2), strict=True):
            full = reference.self_attention(layer, model.settings, list(x), turns[axis], masks[axis])
            torch.testing.assert_close(out, torch.from_numpy(np.array(full)), **TOLERANCE)


@pytest.fixture
def train_on(inputs):
    """Take the loss of recipe `stiv`: `train_on(model, change)`, `change` being made to the draws."""
    data, _, text, micro = inputs
    batch = Batch([], data, text, micro)
    null_text = Text(*(part[:1] for part in text))

    def train_on(model, change=lambda draws: draws, **changes) -> tuple[torch.Tensor, torch.Tensor, Draws]:
        """Return the loss, its gradient with respect to the predicted velocity, and the draws."""
        recipe = RecipeSettings.model_validate(PARAMS.train["stiv"].model_dump() | changes)
        draws = change(draw([0, 1, 2], data.shape[1:], 16, recipe, PARAMS.training))
        model.register_forward_hook(lambda module, given, out: out.retain_grad())
        calls = watch(model)
        value = losses(model, batch, draws, null_text, recipe, PARAMS.training).mean()
        value.backward()
        ((_, predicted),) = calls
        return value.detach(), predicted.grad, draws

    return train_on


def only_sample_1_without_image(draws: Draws) -> Draws:
    return draws._replace(drop_image_B=torch.tensor([False, True, False]))


@pytest.mark.parametrize("pattern", ["first", "first_and_last", "every_second", (1,), (0, 3)])
def test_given_frames_get_exactly_zero_gradient_and_all_others_some(lively, train_on, pattern):
    model = lively(is_video=True)  # two frames per token: the loss is masked per frame, not per token
    _, gradient, _ = train_on(model, only_sample_1_without_image, clean_frames=pattern, mask_ratio=0.0)
    is_clean = clean_frame_mask(pattern, 4).expand(3, -1) & torch.tensor([[True], [False], [True]])
    assert (gradient[is_clean] == 0).all()
    assert (gradient[~is_clean] != 0).all()


def test_dropped_places_get_exactly_zero_gradient_and_kept_ones_some(lively, train_on):
    _, gradient, draws = train_on(lively(is_video=True), clean_frames="none", mask_ratio=0.5)
    seen = kept_weight(TokenMask(sample_kept(draws.spatial_order_BS, 0.5), None), 1, 16, gradient.device).view(
        3, 1, 1, 4, 4
    )
    is_seen = seen.bool().repeat_interleave(2, 3).repeat_interleave(2, 4).expand_as(gradient)
    assert (gradient[~is_seen] == 0).all()
    assert (gradient[is_seen] != 0).all()


def test_another_target_at_given_frames_changes_no_gradient(lively, train_on):
    def other_noise_in_frame_0(draws: Draws) -> Draws:  # it is in the target, and clean latents stand in its place in x
        return draws._replace(noise_BFCHW=draws.noise_BFCHW.index_fill(1, torch.tensor([0]), 7.0))

    outcomes = []
    for change in (lambda draws: draws, other_noise_in_frame_0):
        model = lively(is_video=True)
        value, _, _ = train_on(model, change, clean_frames="first", image_dropout=0.0)
        outcomes.append([value, *(p.grad for p in model.parameters())])
    for one, other in zip(*outcomes, strict=True):
        assert torch.equal(one, other)
