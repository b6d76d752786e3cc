"""The solvers on a law whose velocity and flow are known in closed form, then sampling by the network.

Data x_1 ~ N(m, C) makes x_t ~ N(t m, S) with S = t² C + (1 - t)² I, and the velocity E[x_1 - noise | x_t] is
m + (t C - (1 - t) I) S⁻¹ (x - t m). Its flow takes x_0 to m + C^(1/2) x_0.

Shapes: B batch, D dimensions.
"""

from functools import partial
from itertools import product

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from stiv_model.diffusion.frame_conditioning import clean_frame_mask, null_image, replace_frames
from stiv_model.diffusion.rectified_flow import interpolate, shift_timesteps
from stiv_model.diffusion.sampler import (
    FrameCondition,
    GuidedVelocity,
    SamplingControl,
    sample,
    scheduler_timesteps,
    solve,
    solve_with_scheduler,
    timestep_schedule,
)
from stiv_model.network.conditions import Text
from stiv_model.settings import SamplerSettings
from tests.stiv_model.runs import random_text

SOLVERS = ["euler", "heun", "euler_maruyama", "heun_sde"]
GUIDANCES = ["text", "joint", "separate"]
PATTERNS = ["none", "first", "first_and_last", "first_four", "every_second", "views", (1, 4)]
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.2, 0.9], [0.9, 0.8]], dtype=torch.float64)
EIGENVALUES, AXES = torch.linalg.eigh(COVARIANCE)


def law_velocity(x_BD, timestep_B):
    time = timestep_B[:, None]
    slope = (time * EIGENVALUES - (1 - time)) / (time**2 * EIGENVALUES + (1 - time) ** 2)
    return MEAN + (slope * ((x_BD - time * MEAN) @ AXES)) @ AXES.T


def order(steps, errors) -> float:
    """Return the order of convergence: minus the slope of log error over log steps."""
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (steps, errors))
    return -(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()).item()


def sampling(**changes) -> SamplerSettings:
    usual = {"solver": "euler", "steps": 4, "shift": 1.0, "guidance": "joint", "guidance_scale": 2.0}
    usual |= {"image_guidance_scale": 1.5, "guidance_start": 0.0, "guidance_end": 1.0, "renormalise": False}
    return SamplerSettings(**usual | {"batch_guidance": True, "original_height": 8, "original_width": 8} | changes)


@pytest.fixture
def ask(inputs):
    """Sample from a model, with the first of four latent frames given unless `given` is None."""
    noise, _, text, micro = inputs
    null_text = Text(text.tokens_BLE.flip(0), text.mask_BL.flip(0), -text.pooled_BE)
    clean = torch.randn(noise.shape, generator=torch.Generator().manual_seed(5))
    first = FrameCondition(clean, torch.tensor([[True, False, False, False]] * 3))

    def call(model, changes=None, given=first, **more):
        more["draw_noise"] = partial(torch.randn, noise.shape, generator=torch.Generator().manual_seed(6))
        return sample(model, noise, text, null_text, micro, sampling(**changes or {}), given, **more)

    call.noise, call.text, call.null_text, call.micro, call.first = noise, text, null_text, micro, first
    return call


@pytest.fixture
def runs_of_six():
    """Draw noise, clean latents, text, null text and micro-conditions of a batch of six latent frames."""

    def draw(batch):
        noise, clean = torch.randn(2, batch, 6, 4, 4, 4, generator=torch.Generator().manual_seed(7))
        text, null_text = random_text(batch), random_text(batch)
        return noise, clean, text, null_text, torch.rand(batch, 6) * 100

    return draw


def evaluations(model) -> list:
    """Return a list that fills with what the model is asked: x, time, and the given frames."""
    seen = []
    model.register_forward_pre_hook(
        lambda _, args, more: seen.append((*args[:2], more["frame_condition"])), with_kwargs=True
    )
    return seen


def test_times_run_from_noise_to_data_and_are_shifted():
    assert timestep_schedule(5, 1.0).tolist() == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert torch.equal(timestep_schedule(5, 3.0), shift_timesteps(timestep_schedule(5, 1.0), 3.0))


@pytest.mark.parametrize(("solver", "expected"), [("euler", 1), ("heun", 2)])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_ode_solvers_converge_with_their_order_to_the_exact_flow(solver, expected, shift):
    noise = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = MEAN + (noise @ AXES * EIGENVALUES.sqrt()) @ AXES.T
    steps = [16, 32, 64, 128, 256]
    errors = [(solve(law_velocity, noise, timestep_schedule(n, shift), solver) - exact).norm().item() for n in steps]
    assert order(steps, errors) == pytest.approx(expected, abs=0.15)


def scheme_law(solver: str, steps: int):
    """Return the exact mean and covariance of what a solver makes.

    The solver is linear in what it draws, so a batch in which each row has a single 1 among all its draws (the start
    and the noise of every step), and one row has none, tells the whole law.
    """
    rows = torch.eye(2 * steps + 2, 2 * steps, dtype=torch.float64)  # draws: the start, then steps - 1 noises
    draws = iter(rows.unflatten(1, (steps, 2)).unbind(1))
    out = solve(law_velocity, next(draws), timestep_schedule(steps, 1.0), solver, lambda: next(draws))
    mean = out[-1]
    return mean, (out - mean).T @ (out - mean)


@pytest.mark.parametrize(("solver", "expected"), [("euler_maruyama", 1), ("heun_sde", 2)])
def test_the_sde_solvers_converge_weakly_with_their_order(solver, expected):
    steps = [16, 32, 64, 128, 256]
    laws = [scheme_law(solver, n) for n in steps]
    for mean, _ in laws:  # the mean moves on a straight line, at the velocity m
        torch.testing.assert_close(mean, MEAN, atol=1e-12, rtol=0)
    errors = [(covariance - COVARIANCE).norm().item() for _, covariance in laws]
    assert order(steps, errors) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize(("solver", "steps"), [("euler_maruyama", 200), ("heun_sde", 50)])
def test_the_sde_solvers_reach_the_mean_and_covariance_of_the_data(solver, steps):
    count, generator = 10_000, torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(count, 2, dtype=torch.float64, generator=generator)

    out = solve(law_velocity, draw(), timestep_schedule(steps, 1.0), solver, draw)
    variance = COVARIANCE.diagonal()
    assert ((out.mean(0) - MEAN).abs() < 4 * (variance / count).sqrt()).all()
    deviation = ((variance[:, None] * variance + COVARIANCE**2) / count).sqrt()  # of a sample covariance
    assert ((out.T.cov() - COVARIANCE).abs() < 4 * deviation).all()


@pytest.mark.parametrize(("sde", "ode"), [("euler_maruyama", "euler"), ("heun_sde", "heun")])
def test_the_last_step_of_the_sde_adds_no_noise(sde, ode):
    x = torch.randn(5, 2, dtype=torch.float64)
    last = torch.tensor([0.9, 1.0], dtype=torch.float64)
    by_sde = solve(law_velocity, x, last, sde, draw_noise=lambda: torch.full_like(x, torch.inf))
    assert torch.equal(by_sde, solve(law_velocity, x, last, ode))


def test_an_sde_without_a_source_of_noise_is_refused():
    with pytest.raises(ValueError, match=r"sampler\.solver is heun_sde"):
        solve(law_velocity, torch.zeros(5, 2), timestep_schedule(4, 1.0), "heun_sde")


def test_what_on_step_returns_takes_the_place_of_x():
    done = []

    def on_step(step, x):
        done.append(step)
        return torch.zeros_like(x) if step == 4 else None

    assert not solve(law_velocity, torch.ones(5, 2), timestep_schedule(4, 1.0), "heun", on_step=on_step).any()
    assert done == [1, 2, 3, 4]


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_scheduler_of_diffusers_agrees_with_euler(shift):
    noise = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    done = []

    def velocity(x_BD, timestep_B):
        return law_velocity(x_BD.double(), timestep_B.double()).float()

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    by_scheduler = solve_with_scheduler(scheduler, velocity, noise, 20, lambda step, x: done.append(step))
    euler = solve(velocity, noise, timestep_schedule(20, shift), "euler")
    torch.testing.assert_close(by_scheduler, euler, atol=1e-5, rtol=1e-5)
    assert done == list(range(1, 21))


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0, 1000.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_the_times_of_a_scheduler_that_only_shifts_are_exact(shift, steps):
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_shift(shift)
    assert torch.equal(scheduler_timesteps(scheduler, steps), timestep_schedule(steps, shift))


def test_the_times_of_a_scheduler_that_spreads_otherwise_are_its_own():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0, use_karras_sigmas=True)
    times = scheduler_timesteps(scheduler, 5)
    torch.testing.assert_close(1 - times, scheduler.sigmas.double(), rtol=0, atol=0)
    assert (times - timestep_schedule(5, 2.0)).abs().max() > 0.01
    theirs = solve_with_scheduler(scheduler, lambda x, t: t[:, None] - x, torch.ones(2, 3), 5)
    ours = solve(lambda x, t: t[:, None] - x, torch.ones(2, 3), times, "euler")
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def test_times_that_do_not_run_from_noise_to_data_are_refused():
    with pytest.raises(ValueError, match=r"sigmas for 3 sampling steps are \[.*, but they must fall from 1"):
        scheduler_timesteps(FlowMatchEulerDiscreteScheduler(invert_sigmas=True), 3)


@pytest.mark.parametrize("solver", [*SOLVERS, "by a scheduler"])
def test_control_changes_the_guidance_of_the_steps_that_are_left_and_stops(lively, ask, solver):
    model, settings = lively(is_video=True), sampling(solver="euler" if solver == "by a scheduler" else solver)
    scheduler = FlowMatchEulerDiscreteScheduler() if solver == "by a scheduler" else None

    def run(act) -> tuple[list, torch.Tensor]:
        control, shown = SamplingControl(settings), []

        def on_step(done, x):
            shown.append(x)
            act(control, done)

        changes = {"solver": settings.solver}
        return shown, ask(model, changes, on_step=on_step, control=control, scheduler=scheduler)

    def guide(control, done):
        control.settings = settings.model_copy(update={"guidance_scale": 5.0})

    def stop(control, done):
        control.is_stopped = done == 2

    plain, _ = run(lambda control, done: None)
    guided, _ = run(guide)
    stopped, last = run(stop)
    assert torch.equal(guided[0], plain[0]) and (guided[1] - plain[1]).abs().max() > 1e-3
    assert len(stopped) == 2 and torch.equal(stopped[1], plain[1]) and torch.equal(last, plain[1])


def test_a_network_samples_alike_by_the_scheduler_of_diffusers(lively, ask):
    model = lively(is_video=True)
    theirs = ask(model, {"shift": 9.0}, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0))
    torch.testing.assert_close(theirs, ask(model, {"shift": 3.0}), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("solver", "kind", "image_condition"),
    [*product(SOLVERS, GUIDANCES, ["replacement"]), *product(["heun_sde"], ["separate"], ["cross_attention", "both"])],
)
def test_given_frames_come_out_bit_for_bit(lively, ask, solver, kind, image_condition):
    out = ask(lively(is_video=True, image_condition=image_condition), {"solver": solver, "guidance": kind, "steps": 3})
    clean = ask.first.latents_BFCHW
    assert torch.equal(out[:, 0], clean[:, 0])
    assert out.isfinite().all()
    assert not torch.allclose(out[:, 1], clean[:, 1], atol=0.1)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_frames_of_every_mode_come_out_bit_for_bit(lively, runs_of_six, pattern, solver):
    model = lively(is_video=True)
    seen = evaluations(model)
    is_clean = clean_frame_mask(pattern, 6)
    for batch, (scale, passes) in product((1, 4), ((1.0, 1), (2.0, 2))):
        noise, clean, *conditions = runs_of_six(batch)
        settings = sampling(solver=solver, guidance_scale=scale, steps=2)
        given = FrameCondition(clean, is_clean.expand(batch, -1))
        more = {"draw_noise": lambda noise=noise: noise.flip(0, 1), "null_image": null_image(pattern)}
        seen.clear()
        out = sample(model, noise, *conditions, settings, given, **more)
        assert {len(x) for x, *_ in seen} == {batch * passes}
        assert torch.equal(out[:, is_clean], clean[:, is_clean])
        assert ((out - clean)[:, ~is_clean].abs().amax((2, 3, 4)) > 0.1).all(), "the others are made"


@pytest.mark.parametrize("image_condition", ["replacement", "cross_attention", "both"])
def test_the_given_frame_changes_the_others(lively, ask, image_condition):
    model = lively(is_video=True, image_condition=image_condition)
    other = ask.first._replace(latents_BFCHW=-ask.first.latents_BFCHW)
    assert not torch.allclose(ask(model)[:, 1:], ask(model, given=other)[:, 1:], atol=1e-4)


def test_given_frames_that_do_not_fit_are_refused_with_both_sizes(lively, ask):
    small = FrameCondition(ask.first.latents_BFCHW[..., :4], ask.first.is_clean_BF)
    with pytest.raises(ValueError, match=r"\(3, 4, 4, 8, 4\).*\(3, 4, 4, 8, 8\)"):
        ask(lively(is_video=True), given=small)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_sample_does_not_depend_on_its_batch(lively, ask, solver):
    model, settings = lively(is_video=True), sampling(solver=solver, guidance="separate")
    together = sample(model, ask.noise, ask.text, ask.null_text, ask.micro, settings, ask.first)
    text, null_text, given = (type(part)(*(row[:1] for row in part)) for part in (ask.text, ask.null_text, ask.first))
    alone = sample(model, ask.noise[:1], text, null_text, ask.micro[:1], settings, given)
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", GUIDANCES)
@pytest.mark.parametrize("image_condition", ["replacement", "cross_attention", "both"])
def test_the_passes_of_guidance_are_the_same_in_one_batch_or_in_turn(lively, ask, kind, image_condition):
    model = lively(is_video=True, image_condition=image_condition)
    turns = {"guidance": kind, "batch_guidance": False}
    torch.testing.assert_close(ask(model, {"guidance": kind}), ask(model, turns), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", GUIDANCES)
def test_scale_one_is_the_conditional_velocity_bit_for_bit_in_one_pass(lively, ask, kind):
    model = lively(is_video=True)
    changes = {"guidance": kind, "guidance_scale": 1.0, "image_guidance_scale": 1.0, "renormalise": True}
    at = (model, ask.noise, ask.text, ask.null_text, ask.micro)
    guided = GuidedVelocity(*at, sampling(**changes), ask.first, "noised")
    time, seen = torch.full((3,), 0.5), evaluations(model)
    v = guided(ask.noise, time)
    assert [len(x) for x, _, _ in seen] == [3]
    alone = model(replace_frames(ask.noise, *ask.first), time, ask.text, ask.micro, frame_condition=None)
    assert torch.equal(v[:, 1:], alone[:, 1:])
    assert not v[:, 0].any()


@pytest.mark.parametrize(("kind", "passes"), [("text", 2), ("joint", 2), ("separate", 3)])
def test_guidance_acts_inside_its_interval_only(lively, ask, kind, passes):
    model = lively(is_video=True)
    conditional = ask(model, {"guidance": "joint", "guidance_scale": 1.0})
    seen = evaluations(model)
    later = ask(model, {"guidance": kind, "guidance_start": 0.8})  # steps start at 0, 0.25, 0.5, 0.75
    assert torch.equal(later, conditional)
    ask(model, {"guidance": kind, "guidance_start": 0.2, "guidance_end": 0.6, "steps": 5})
    assert [len(x) // 3 for x, _, _ in seen] == [1, 1, 1, 1, 1, passes, passes, passes, 1]


def test_without_given_frames_every_guidance_is_text_guidance_in_two_passes(lively, ask):
    model = lively(is_video=True)
    seen = evaluations(model)
    text, joint, separate = (ask(model, {"guidance": kind}, given=None) for kind in GUIDANCES)
    assert torch.equal(joint, text)
    assert torch.equal(separate, text)
    assert {len(x) for x, _, _ in seen} == {6}
    assert not torch.allclose(ask(model, {"guidance_scale": 1.0}, given=None), text, atol=1e-3)


def test_separate_guidance_at_equal_scales_samples_as_joint_guidance(lively, ask):
    model = lively(is_video=True)
    separate = ask(model, {"guidance": "separate", "guidance_scale": 2.0, "image_guidance_scale": 2.0})
    torch.testing.assert_close(separate, ask(model, {"guidance": "joint"}), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ask(model, {"guidance": "separate"}), separate, atol=1e-3)


@pytest.mark.parametrize("null_image", ["noised", "zeros"])
def test_a_dropped_image_looks_as_it_did_in_training(lively, ask, null_image):
    model = lively(is_video=True)
    seen = evaluations(model)
    ask(model, null_image=null_image)
    clean = ask.first.latents_BFCHW
    for x, time, _ in seen:
        with_image, without_image = x.chunk(2)
        noised = interpolate(clean, ask.noise, time[:3])
        assert torch.equal(with_image[:, 0], clean[:, 0])
        assert torch.equal(without_image[:, 0], noised[:, 0] if null_image == "noised" else torch.zeros(3, 4, 8, 8))
        assert torch.equal(with_image[:, 1:], without_image[:, 1:])


@pytest.mark.parametrize("solver", SOLVERS)
def test_given_frames_are_clean_at_every_evaluation_and_in_on_step(lively, ask, solver):
    model, shown = lively(is_video=True), []
    seen = evaluations(model)
    ask(model, {"solver": solver, "guidance": "text"}, on_step=lambda done, x: shown.append(x))
    clean = ask.first.latents_BFCHW[:, 0]
    assert len(seen) == (8 if "heun" in solver else 4)
    assert all(torch.equal(x[:, 0], clean.repeat(2, 1, 1, 1)) for x, _, _ in seen)
    assert len(shown) == 4 and all(torch.equal(x[:, 0], clean) for x in shown)


def test_a_model_with_cross_attention_is_told_the_frames_and_keeps_its_own_x(lively, ask):
    model = lively(is_video=True, image_condition="cross_attention")
    seen = evaluations(model)
    ask(model, {"guidance": "separate"})
    x, _, given = seen[0]
    assert torch.equal(x, ask.noise.repeat(3, 1, 1, 1, 1))
    assert given.is_clean_BF.any(1).tolist() == [True] * 6 + [False] * 3


def test_renormalised_guidance_measures_the_frames_that_are_made(lively, ask):
    model, time = lively(is_video=True), torch.full((3,), 0.5)
    at = (model, ask.noise, ask.text, ask.null_text, ask.micro)
    guided = GuidedVelocity(*at, sampling(renormalise=True, guidance_scale=5.0), ask.first, "noised")
    conditional = GuidedVelocity(*at, sampling(guidance_scale=1.0), ask.first, "noised")
    lengths = (v(ask.noise, time)[:, 1:].flatten(1).norm(dim=1) for v in (guided, conditional))
    torch.testing.assert_close(*lengths)


@pytest.mark.parametrize("scheduler", [None, FlowMatchEulerDiscreteScheduler()])
def test_latents_stay_precise_under_a_model_of_short_numbers(lively, ask, scheduler):
    out = ask(lively(is_video=True).bfloat16(), scheduler=scheduler)
    assert out.dtype == torch.float32
    assert not torch.equal(out[:, 1:], out[:, 1:].bfloat16().float())
