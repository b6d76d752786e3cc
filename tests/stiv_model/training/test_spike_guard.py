import json
import math

import pytest
import torch
from safetensors.torch import load_file

from stiv_model.training.spike_guard import IN_A_ROW, RETURNS, Guard
from tests.stiv_model.runs import RECIPE, TRAINING, incidents, poison, prepare


def steady(steps: int) -> Guard:
    """Return a guard that has seen good steps: losses near 1, gradient norms near 0.5."""
    guard, noise = Guard(TRAINING, {}), torch.Generator().manual_seed(0)
    for loss, norm in 1 + 0.05 * torch.randn(steps, 2, generator=noise).double():
        assert guard.judge(loss.item(), 0.5 * norm.item()) is None
    return guard


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused_from_the_first_step_on(value):
    assert "loss" in Guard(TRAINING, {}).judge(value, 1.0)
    assert "gradient norm" in Guard(TRAINING, {}).judge(1.0, value)


def test_an_outlier_is_refused_and_named_and_usual_steps_are_not():
    guard = steady(100)
    assert guard.judge(1.2, 0.6) is None
    assert "loss 9 is" in guard.judge(9.0, 0.5)
    assert "gradient norm 50 is" in guard.judge(1.0, 50.0)


def test_small_losses_are_never_outliers():
    assert steady(100).judge(1e-6, 1e-6) is None


def test_before_it_knows_what_is_usual_it_refuses_no_finite_number():
    assert steady(10).judge(1e6, 1e6) is None


def test_an_outlier_does_not_become_usual():
    guard = steady(100)
    assert all(guard.judge(9.0, 0.5) for _ in range(300))


def noisy(factor_per_step: float, steps: int) -> list[float]:
    noise = torch.randn(steps, generator=torch.Generator().manual_seed(1)).double()
    return [(factor_per_step**step) * math.exp(0.05 * one) for step, one in enumerate(noise.tolist())]


@pytest.mark.parametrize("factor", [1.01, 1.003])
def test_a_loss_that_rises_a_little_with_each_step_is_refused_before_it_has_risen_far(factor):
    guard = steady(300)
    losses = noisy(factor, 2000)
    refused = next(step for step, loss in enumerate(losses) if guard.judge(loss, 0.5))
    assert losses[refused] < 5
    assert "loss has risen" in guard.judge(losses[refused + 1], 0.5)


@pytest.mark.parametrize("factor", [1.0, 0.99, 1.0001])
def test_a_loss_that_stays_falls_or_wanders_a_little_is_not(factor):
    guard = steady(300)
    assert not any(guard.judge(loss, 0.5) for loss in noisy(factor, 3000))


def test_what_it_has_risen_from_is_remembered_with_a_checkpoint():
    guard = steady(300)
    losses = noisy(1.003, 2000)
    for loss in losses[:150]:
        guard.judge(loss, 0.5)
    taken_up = Guard(TRAINING, json.loads(json.dumps(guard.memory())))
    assert [guard.judge(loss, 0.5) for loss in losses[150:400]] == [
        taken_up.judge(loss, 0.5) for loss in losses[150:400]
    ]
    assert taken_up.bad_in_a_row > 0


def test_a_gradient_that_is_exactly_zero_is_refused_and_a_tiny_one_is_not():
    guard = Guard(TRAINING, {})
    assert "gradient norm is 0" in guard.judge(0.5, 0.0)
    assert guard.judge(0.5, 1e-20) is None


def test_bad_steps_are_counted_in_a_row():
    guard = steady(60)
    for value in (math.nan, math.nan, 1.0, math.nan):
        guard.judge(value, 0.5)
    assert guard.bad_in_a_row == 1


def test_going_back_passes_over_the_steps_after_the_checkpoint_and_forgets_what_came_after_it():
    guard = steady(60)
    saved = guard.memory()
    for _ in range(IN_A_ROW):
        guard.judge(math.nan, 0.5)
    guard.go_back(checkpoint=57, step=63, memory=saved)
    assert guard.passed_over == {58, 59, 60, 61, 62, 63}
    assert (guard.bad_in_a_row, guard.memory()["losses"]) == (0, saved["losses"])


def test_it_goes_back_three_times_and_no_more():
    guard = steady(60)
    for time in range(RETURNS):
        guard.go_back(time, time + 1, {})
    with pytest.raises(FloatingPointError, match=r"incidents\.jsonl"):
        guard.go_back(5, 6, {})


def test_its_memory_passes_through_a_checkpoint_unchanged():
    guard = steady(60)
    guard.judge(math.nan, 0.5)
    guard.go_back(3, 5, guard.memory())
    again = Guard(TRAINING, json.loads(json.dumps(guard.memory())))
    assert again.memory() == guard.memory()
    assert (again.judge(1.3, 0.7), again.judge(9.0, 0.5)) == (guard.judge(1.3, 0.7), guard.judge(9.0, 0.5))


@pytest.mark.long  # on the update alone: test_deepspeed_engine.py
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2])  # 3: test_train.py
def test_one_nan_in_one_sample_reaches_no_weight_in_any_zero_stage_and_its_clip_is_named(
    tmp_path, latents, forkserver, zero_stage, precision
):
    poison(latents, 1, [2])
    recipe = RECIPE.model_copy(update={"steps": 3})  # 12 samples of 10 clips: the bad one is among them
    training = TRAINING.model_copy(update={"zero_stage": zero_stage, "precision": precision})
    work = tmp_path / "poisoned"
    forkserver.finish(work, prepare(work, latents, recipe, training))
    assert [one["bad"] for one in incidents(work)] == [["clip-1-2"]] * len(incidents(work)) != []
    weights = load_file(work / "weights/model.safetensors")
    assert all(weight.isfinite().all() for weight in weights.values())
    assert weights["patch_out.weight"].any(), "it starts at zero: the good steps were not taken"
