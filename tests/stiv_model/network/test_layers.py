import pytest
import torch
from torch.utils.checkpoint import checkpoint

from stiv_model.network.layers import norm_and_rotate
from stiv_model.network.rope import angles, rotary_factors, rotate

EPSILON = 1e-6


@pytest.fixture
def x():
    """Queries of 2 samples, 3 frames, 5 spatial tokens, 2 heads, as they lie beside keys and values."""
    torch.manual_seed(0)
    return torch.randn(2, 3, 5, 3, 2, 8, dtype=torch.float64)[:, :, :, 0].requires_grad_()


@pytest.fixture
def scale():
    torch.manual_seed(1)
    return torch.randn(8, dtype=torch.float64).requires_grad_()


def factors(name: str, dtype: torch.dtype = torch.float64) -> torch.Tensor | None:
    spatial, temporal, kept = torch.arange(5), torch.arange(3), torch.tensor([[0, 1, 2, 3, 4], [1, 3, 4, 6, 8]])
    shaped = {
        "none": lambda: None,
        "space": lambda: rotary_factors(angles(spatial, 8, 100.0).to(dtype))[None, None, :, None],
        "time": lambda: rotary_factors(angles(temporal, 8, 100.0).to(dtype))[None, :, None, None],
        "per sample": lambda: rotary_factors(angles(kept, 8, 100.0).to(dtype))[:, None, :, None],
    }
    return shaped[name]()


def step_by_step(x: torch.Tensor, scale: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
    normed = torch.nn.functional.rms_norm(x, scale.shape, scale, EPSILON)
    return normed if factors is None else rotate(normed, factors)


def with_gradients(function, x, scale, *others):
    x, scale = (part.detach().requires_grad_() for part in (x, scale))
    y = function(x, scale, *others)
    torch.manual_seed(2)
    y.backward(torch.randn(y.shape).bfloat16().to(y.dtype))
    return y.detach(), x.grad, scale.grad


@pytest.mark.parametrize("name", ["none", "space", "time", "per sample"])
def test_norm_and_rotation_in_one_equal_one_after_the_other(x, scale, name):
    in_one = with_gradients(lambda *given: norm_and_rotate(*given, EPSILON), x, scale, factors(name))
    for mine, plain in zip(in_one, with_gradients(step_by_step, x, scale, factors(name)), strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", ["none", "per sample"])
def test_hand_written_gradient_agrees_with_finite_differences(x, scale, name):
    assert torch.autograd.gradcheck(lambda x, scale: norm_and_rotate(x, scale, factors(name), EPSILON), (x, scale))


def test_bfloat16_is_normed_and_rotated_in_float32_and_rounded_once(x, scale):
    low = [part.detach().bfloat16() for part in (x, scale)]
    exact = with_gradients(step_by_step, *(part.double() for part in low), factors("space"))
    rounded = with_gradients(lambda *given: norm_and_rotate(*given, EPSILON), *low, factors("space", torch.float32))
    for mine, true in zip(rounded[:2], exact[:2], strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.double(), true, atol=1e-6, rtol=2**-7)


def test_neither_input_nor_gradient_is_overwritten(x, scale):
    before = x.detach().clone()
    y = norm_and_rotate(x, scale, factors("space"), EPSILON)
    gradient = torch.ones_like(y)
    y.backward(gradient)
    assert torch.equal(x, before)
    assert torch.equal(gradient, torch.ones_like(y))


def test_norm_and_rotation_can_be_executed_again_by_activation_checkpointing(x, scale):
    def again(*given):
        return checkpoint(norm_and_rotate, *given, EPSILON, use_reentrant=False)

    plain = with_gradients(lambda *given: norm_and_rotate(*given, EPSILON), x, scale, factors("time"))
    for mine, once in zip(with_gradients(again, x, scale, factors("time")), plain, strict=True):
        assert torch.equal(mine, once)


@pytest.mark.parametrize("name", ["none", "space"])
def test_what_the_compiler_sees_equals_what_is_executed_without_it(x, scale, name):
    def function(*given):
        return norm_and_rotate(*given, EPSILON)

    compiled = torch.compile(function, backend="aot_eager", dynamic=False, fullgraph=True)  # traces, builds nothing
    eager = with_gradients(function, x, scale, factors(name))
    for mine, plain in zip(with_gradients(compiled, x, scale, factors(name)), eager, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.long)])
def test_compiled_blocks_give_what_they_gave_before(lively, inputs, monkeypatch, checkpointing):
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *given, **kwargs: compiler(*given, **kwargs, backend="aot_eager"))
    model = lively(is_video=True)
    model.activation_checkpointing = checkpointing
    results = []
    for _ in range(2):
        velocity = model(*inputs)
        model.zero_grad()
        velocity.square().mean().backward()
        results.append(
            (velocity, *(parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None))
        )
        model.compile_blocks()
    for compiled, eager in zip(*reversed(results), strict=True):
        torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=1e-4)
