import pytest
import torch

from stiv_model.diffusion import rectified_flow


def test_the_path_runs_from_noise_to_data_at_the_target_velocity():
    data, noise = torch.randn(2, 2, 3, 4, 2, 2, dtype=torch.float64)
    zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(rectified_flow.interpolate(data, noise, zero), noise)
    torch.testing.assert_close(rectified_flow.interpolate(data, noise, one), data)
    moved = rectified_flow.interpolate(data, noise, 0.3 * one) + 0.5 * rectified_flow.velocity_target(data, noise)
    torch.testing.assert_close(rectified_flow.interpolate(data, noise, 0.8 * one), moved)


def test_logit_normal_times_are_the_sigmoid_of_a_normal():
    times = rectified_flow.sample_timesteps(
        torch.rand(100_000, generator=torch.Generator().manual_seed(0)), "logit_normal", 1.0
    )
    logits = torch.logit(times)
    assert logits.mean().abs() < 0.02
    assert (logits.std() - 1).abs() < 0.02


@pytest.mark.parametrize("density", ["uniform", "logit_normal"])
def test_drawn_times_are_shifted_after_the_density(density):
    uniform = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    shifted = rectified_flow.sample_timesteps(uniform, density, 3.0)
    torch.testing.assert_close(
        shifted, rectified_flow.shift_timesteps(rectified_flow.sample_timesteps(uniform, density, 1.0), 3.0)
    )
    assert shifted.mean() < rectified_flow.sample_timesteps(uniform, density, 1.0).mean()


def test_shifted_times_are_those_of_stable_diffusion_3():
    noise_level = 1 - torch.linspace(0, 1, 11, dtype=torch.float64)
    wanted = 1 - 3 * noise_level / (1 + 2 * noise_level)
    torch.testing.assert_close(rectified_flow.shift_timesteps(1 - noise_level, 3.0), wanted, atol=1e-15, rtol=0)


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0, 7.77])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shifted_times_keep_the_ends_and_the_order(shift, dtype):
    times = rectified_flow.shift_timesteps(torch.linspace(0, 1, 1001, dtype=dtype), shift)
    assert (times[0].item(), times[-1].item()) == (0, 1)
    assert (times.diff() > 0).all()


def test_a_shift_of_one_changes_no_bit():
    times = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rectified_flow.shift_timesteps(times, 1.0), times)


def test_the_inverse_shift_turns_a_shift_back():
    times = torch.linspace(0, 1, 101, dtype=torch.float64)
    back = rectified_flow.shift_timesteps(rectified_flow.shift_timesteps(times, 3.0), 1 / 3.0)
    torch.testing.assert_close(back, times, atol=1e-14, rtol=0)


def test_frames_without_weight_get_no_gradient():
    predicted = torch.randn(2, 4, 3, 2, 2, requires_grad=True)
    weight = torch.ones(2, 4, 1, 1, 1)
    weight[0, 0] = 0
    rectified_flow.velocity_losses(predicted, torch.zeros_like(predicted), weight).mean().backward()
    assert torch.equal(predicted.grad[0, 0], torch.zeros(3, 2, 2))
    assert (predicted.grad[1] != 0).all()


def test_a_sample_counts_as_much_with_clean_frames_as_without():
    wanted = torch.zeros(2, 4, 1, 1, 1)
    weight = torch.ones(2, 4, 1, 1, 1)
    weight[0, 1:] = 0
    assert rectified_flow.velocity_losses(torch.ones(2, 4, 1, 1, 1), wanted, weight).mean().item() == pytest.approx(1.0)
