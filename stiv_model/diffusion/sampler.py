"""From noise to latents: a guided velocity, clean frames put back at every evaluation, and the solvers.

Shapes: B batch, F latent frames, C channels, H, W latents, M micro-conditions; `...` is any shape of a sample.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from stiv_model.diffusion import guidance
from stiv_model.diffusion.frame_conditioning import NullImage, replace_frames
from stiv_model.diffusion.rectified_flow import interpolate, shift_timesteps
from stiv_model.network.conditions import FrameCondition, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import SamplerSettings

if TYPE_CHECKING:  # seconds to import, which ranks that validate need not wait
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Takes x (B, ...) and timestep_B, returns the velocity, data - noise, of the shape of x."""
OnStep = Callable[[int, Tensor], Tensor | None]
"""Called with the number of sampling steps done and x; may return another x to go on from."""
Guidance = Literal["none", "text", "joint", "separate"]
"""Which conditions are held against each other in one evaluation."""
_FLOAT32 = 1e-6
"""What a time in float32 may differ from the same in float64."""


@dataclass
class SamplingControl:
    """What may be changed while a sample is made; looked at before every sampling step.

    Attributes:
        settings: guidance, its scales and its interval; the solver and the number of steps stay those of the start.
        is_stopped: whether the sampling steps that are left are left out.
    """

    settings: SamplerSettings
    is_stopped: bool = False


class _Solver(NamedTuple):
    is_stochastic: bool
    is_second_order: bool


_SOLVERS = {
    "euler": _Solver(is_stochastic=False, is_second_order=False),
    "heun": _Solver(is_stochastic=False, is_second_order=True),
    "euler_maruyama": _Solver(is_stochastic=True, is_second_order=False),
    "heun_sde": _Solver(is_stochastic=True, is_second_order=True),
}


def timestep_schedule(steps: int, shift: float) -> Tensor:
    """Return the timesteps (steps + 1,) of sampling from 0, noise, to 1, data.

    In float64, so that 4 steps of 5 are 0.8 and not its neighbour.

    Args:
        steps: sampling steps.
        shift: as in `rectified_flow.shift_timesteps`; 1 is even steps.
    """
    return shift_timesteps(torch.arange(steps + 1, dtype=torch.float64) / steps, shift)


def scheduler_timesteps(scheduler: "FlowMatchEulerDiscreteScheduler", steps: int) -> Tensor:
    """Return the timesteps (steps + 1,) of a scheduler of diffusers, from 0, noise, to 1, data, in float64.

    Its sigma is our 1 - t. It is given even sigmas, which it shifts or spreads as it is set up: its own are spread from
    1 to 1 / 1000 with 0 after them, so that the last step would go a thousandth of the way and the others more. Where
    all that it does is its shift, its float32 numbers are those of `timestep_schedule` rounded, which is returned.

    Args:
        scheduler: its times are set anew.
        steps: sampling steps.

    Raises:
        ValueError: its times do not rise from noise to data.
    """
    scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)])
    timesteps = 1 - scheduler.sigmas.double().cpu()
    if not (timesteps[0] >= -_FLOAT32 and timesteps[-1] == 1 and (timesteps.diff() > 0).all()):
        raise ValueError(
            f"the scheduler's sigmas for {steps} sampling steps are {scheduler.sigmas.tolist()}, but they must fall "
            "from 1, noise, to 0, data: set it up otherwise, or take another number of steps"
        )
    exact = timestep_schedule(steps, scheduler.shift)
    return exact if torch.allclose(timesteps, exact, rtol=0, atol=_FLOAT32) else timesteps


def solve(
    velocity: Velocity,
    x: Tensor,
    timesteps: Tensor,
    solver: str,
    draw_noise: Callable[[], Tensor] | None = None,
    on_step: OnStep = lambda done, x: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Integrate from noise to data; return x (B, ...) at the last timestep, or where it was stopped.

    `euler` and `heun` follow the ODE dx = v dt, with order 1 and 2. `euler_maruyama` and `heun_sde` follow the SDE
    with the same marginals (paper, appendix A), dx = (v + w/2 score) dt + sqrt(w) dW with
    score = (t v - x) / (1 - t). Any w(t) >= 0 keeps the marginals; w = 1 - t (the "sigma" form of SiT, arXiv
    2401.08740) leaves the drift v + (t v - x) / 2 without a division. The noise of a step has the variance that w has
    over it, and Heun's two evaluations share it, which makes the weak order 2 (1 for Euler-Maruyama).

    In the last step w is 0, that is, it follows the ODE: noise that enters there would stay in the sample, with a
    deviation of one step's length. SiT's last step ("Mean") leaves out the noise but not the score that balances
    it, and so shrinks the law.

    Args:
        velocity: what is integrated.
        x: noise (B, ...).
        timesteps: from 0 to 1, as `timestep_schedule` returns them.
        solver: as `SamplerSettings.solver`.
        draw_noise: fresh normal noise of x's shape, for the SDE.
        on_step: see `OnStep`.
        is_stopped: asked before every step, which is not made where it says so, nor are those after it.

    Raises:
        ValueError: a solver of the SDE has no source of noise.
    """
    is_stochastic, is_second_order = _SOLVERS[solver]
    if is_stochastic and draw_noise is None:
        raise ValueError(f"sampler.solver is {solver}, which adds noise at every step: pass draw_noise, or use heun")
    intervals = list(pairwise(timesteps.tolist()))
    for done, (now, then) in enumerate(intervals, start=1):
        if is_stopped():
            break
        step_size, step_noise = then - now, torch.zeros_like(x)
        drift = velocity
        if draw_noise is not None and is_stochastic and done < len(intervals):
            drift = _sde_drift(velocity)
            step_noise = math.sqrt(step_size * (1 - (now + then) / 2)) * draw_noise()
        drift_now = drift(x, _expand_timestep(now, x))
        x_then = x + step_size * drift_now + step_noise
        if is_second_order:
            x_then = x + step_size / 2 * (drift_now + drift(x_then, _expand_timestep(then, x))) + step_noise
        changed = on_step(done, x_then)
        x = x_then if changed is None else changed
    return x


def solve_with_scheduler(
    scheduler: "FlowMatchEulerDiscreteScheduler",
    velocity: Velocity,
    x: Tensor,
    steps: int,
    on_step: OnStep = lambda done, x: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Integrate from noise to data by a scheduler of diffusers; at the same shift it agrees with `euler`.

    Its sigma is our 1 - t and its model output our -v. It is given even sigmas: see `scheduler_timesteps`.

    Args:
        scheduler: its state is set anew and counts the steps, so that one call at a time may have it.
        velocity: what is integrated.
        x: noise (B, ...).
        steps: sampling steps.
        on_step: see `OnStep`.
        is_stopped: as in `solve`.
    """
    scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)], device=x.device)
    for done, scheduler_timestep in enumerate(scheduler.timesteps, start=1):
        if is_stopped():
            break
        now = 1 - float(scheduler_timestep) / scheduler.config["num_train_timesteps"]
        output = -velocity(x, _expand_timestep(now, x))
        x_then = scheduler.step(output, scheduler_timestep, x, return_dict=False)[0]  # type: ignore[arg-type]  # any Tensor will do
        changed = on_step(done, x_then)
        x = x_then if changed is None else changed
    return x


def _expand_timestep(timestep: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), timestep, dtype=x.dtype, device=x.device)


def _sde_drift(velocity: Velocity) -> Velocity:
    def drift(x: Tensor, timestep_B: Tensor) -> Tensor:
        v = velocity(x, timestep_B)
        return v + (timestep_B.reshape(-1, *[1] * (x.ndim - 1)) * v - x) / 2

    return drift


def guidance_of(settings: SamplerSettings, has_given: bool, timestep: float | Tensor) -> Guidance:
    """Return the guidance that acts. Without given frames all three are `text`; where scales are 1 none acts.

    Args:
        settings: guidance, its scales and its interval.
        has_given: whether frames are given.
        timestep: one number of any shape, 0 for noise, 1 for data.
    """
    kind: Guidance = settings.guidance if has_given else "text"
    scales = {settings.guidance_scale} | ({settings.image_guidance_scale} if kind == "separate" else set())
    is_inside = settings.guidance_start <= timestep <= settings.guidance_end
    return kind if is_inside and scales != {1.0} else "none"


class _ModelInputs(NamedTuple):
    """What the model is given in one evaluation."""

    x_BFCHW: Tensor
    text: Text
    frame_condition: FrameCondition | None


@dataclass
class GuidedVelocity:
    """The velocity of a model under classifier-free guidance (paper, section 2.3.2): call it with x and timesteps.

    Where given frames are replaced, they do not move: the velocity there, which training does not ask for, is 0, and
    CFG-renormalisation measures the frames that are made.

    Args:
        model: predicts the velocity.
        noise_BFCHW: what sampling starts from; given frames are noised with it where the image is dropped.
        text: features of the prompts.
        null_text: features of the empty caption, or of what a sample shall not show, for as many samples.
        micro_BM: one column per name in MICRO_CONDITIONS.
        settings: guidance, its scales and its interval.
        frame_condition: the given frames; None is text to video.
        null_image: what the model was trained to see at given frames where the image is dropped.
    """

    model: StivTransformer
    noise_BFCHW: Tensor
    text: Text
    null_text: Text
    micro_BM: Tensor
    settings: SamplerSettings
    frame_condition: FrameCondition | None
    null_image: NullImage

    def __call__(self, x_BFCHW: Tensor, timestep_B: Tensor) -> Tensor:
        """Return the guided velocity (B, F, C, H, W) at x; `timestep_B` is one and the same for all samples."""
        settings, scale = self.settings, self.settings.guidance_scale
        conditional = self.model_inputs(x_BFCHW, timestep_B, self.text, has_image=True)
        without_text = self.model_inputs(x_BFCHW, timestep_B, self.null_text, has_image=True)
        unconditional = self.model_inputs(x_BFCHW, timestep_B, self.null_text, has_image=False)
        match self.guidance_at(timestep_B):
            case "none":
                return self.predict([conditional], timestep_B)[0]
            case "text":
                v = self.predict([conditional, without_text], timestep_B)
                guided = guidance.text(v[0], v[1], scale)
            case "joint":
                v = self.predict([conditional, unconditional], timestep_B)
                guided = guidance.joint(v[0], v[1], scale)
            case "separate":
                v = self.predict([conditional, without_text, unconditional], timestep_B)
                guided = guidance.separate(v[0], v[1], v[2], scale, settings.image_guidance_scale)
        return guidance.renormalise(guided, v[0]) if settings.renormalise else guided

    def guidance_at(self, timestep_B: Tensor) -> Guidance:
        """Return the guidance that acts, as `guidance_of`."""
        return guidance_of(self.settings, self.frame_condition is not None, timestep_B[0])

    def model_inputs(self, x_BFCHW: Tensor, timestep_B: Tensor, text: Text, has_image: bool) -> _ModelInputs:
        """Return what one evaluation is given: with the image, or as training shows a dropped one."""
        frames = self.cross_attention_frames
        if has_image:
            return _ModelInputs(self.restore_clean_frames(x_BFCHW), text, frames)
        if self.replaced_frames is not None:
            clean, is_clean = self.replaced_frames
            is_zeros = self.null_image == "zeros"
            null = torch.zeros_like(clean) if is_zeros else interpolate(clean, self.noise_BFCHW, timestep_B)
            x_BFCHW = replace_frames(x_BFCHW, null, is_clean)
        dropped = None if frames is None else frames._replace(is_clean_BF=torch.zeros_like(frames.is_clean_BF))
        return _ModelInputs(x_BFCHW, text, dropped)

    def predict(self, passes: list[_ModelInputs], timestep_B: Tensor) -> list[Tensor]:
        """Return the velocity (B, F, C, H, W) of each pass: from one batch, or one after the other."""
        if self.settings.batch_guidance and len(passes) > 1:
            count = len(passes)
            batch = _ModelInputs(
                torch.cat([one.x_BFCHW for one in passes]),
                Text(*_concatenated([one.text for one in passes])),
                None
                if self.cross_attention_frames is None
                else FrameCondition(*_concatenated([one.frame_condition for one in passes if one.frame_condition])),
            )
            velocities = self.run_model(batch, timestep_B.repeat(count), self.micro_BM.repeat(count, 1)).chunk(count)
        else:
            velocities = tuple(self.run_model(one, timestep_B, self.micro_BM) for one in passes)
        if self.replaced_frames is None:
            return list(velocities)
        return [replace_frames(v, torch.zeros_like(v), self.replaced_frames.is_clean_BF) for v in velocities]

    def run_model(self, inputs: _ModelInputs, timestep_B: Tensor, micro_BM: Tensor) -> Tensor:
        """Return the model's velocity in the type of x: sums of steps stay precise where the model's numbers do not."""
        dtype = next(self.model.parameters()).dtype
        x_BFCHW, text, frames = inputs
        v = self.model(x_BFCHW.to(dtype), timestep_B, text, micro_BM, frame_condition=frames)
        return v.to(x_BFCHW.dtype)

    def restore_clean_frames(self, x_BFCHW: Tensor) -> Tensor:
        """Return x (B, F, C, H, W) with the given frames clean, where they stand in x."""
        return x_BFCHW if self.replaced_frames is None else replace_frames(x_BFCHW, *self.replaced_frames)

    @property
    def replaced_frames(self) -> FrameCondition | None:
        """Given frames that stand in x (frame replacement; paper, section 2.3)."""
        return None if self.model.settings.image_condition == "cross_attention" else self.frame_condition

    @property
    def cross_attention_frames(self) -> FrameCondition | None:
        """Given frames that cross-attention sees (paper, Tab. 3)."""
        return None if self.model.settings.image_condition == "replacement" else self.frame_condition


def _concatenated(rows: Sequence[tuple[Tensor, ...]]) -> Iterator[Tensor]:
    return (torch.cat(parts) for parts in zip(*rows, strict=True))


@torch.no_grad()  # not inference_mode: on_step may want gradients of its own, or keep what it is shown
def sample(
    model: StivTransformer,
    noise_BFCHW: Tensor,
    text: Text,
    null_text: Text,
    micro_BM: Tensor,
    settings: SamplerSettings,
    frame_condition: FrameCondition | None = None,
    null_image: NullImage = "noised",
    draw_noise: Callable[[], Tensor] | None = None,
    on_step: OnStep = lambda done, x: None,
    scheduler: "FlowMatchEulerDiscreteScheduler | None" = None,
    timesteps: Tensor | None = None,
    control: SamplingControl | None = None,
) -> Tensor:
    """Return latents (B, F, C, H, W); the given frames in them are the given ones, bit for bit.

    Args:
        model: predicts the velocity.
        noise_BFCHW: what sampling starts from, float32 whatever the type of the model.
        text: features of the prompts.
        null_text: see `GuidedVelocity`.
        micro_BM: one column per name in MICRO_CONDITIONS.
        settings: solver, steps and guidance.
        frame_condition: the given frames; None is text to video.
        null_image: see `GuidedVelocity`.
        draw_noise: fresh noise of the same shape at every call, for the solvers of the SDE.
        on_step: called with the number of sampling steps done and x, its given frames restored; what it returns,
            unless None, replaces x.
        scheduler: integrates instead of `settings.solver`, at its own times.
        timesteps: (steps + 1,) from 0 to 1 for `settings.solver`; None is `timestep_schedule`.
        control: through which `on_step`, or another thread, changes the guidance or stops; its settings go before
            `settings`.

    Raises:
        ValueError: the given frames do not fit the noise, or a solver of the SDE has no `draw_noise`.
    """
    if frame_condition is not None:
        _check_fit(frame_condition, noise_BFCHW)
    velocity = GuidedVelocity(model, noise_BFCHW, text, null_text, micro_BM, settings, frame_condition, null_image)
    control = control or SamplingControl(settings)

    def restore_then_on_step(done: int, x: Tensor) -> Tensor:
        x = velocity.restore_clean_frames(x)
        changed = on_step(done, x)
        return x if changed is None else changed

    def is_stopped() -> bool:
        velocity.settings = control.settings
        return control.is_stopped

    x = velocity.restore_clean_frames(noise_BFCHW)
    if scheduler is None:
        if timesteps is None:
            timesteps = timestep_schedule(settings.steps, settings.shift)
        x = solve(velocity, x, timesteps, settings.solver, draw_noise, restore_then_on_step, is_stopped)
    else:
        x = solve_with_scheduler(scheduler, velocity, x, settings.steps, restore_then_on_step, is_stopped)
    return x if frame_condition is None else replace_frames(x, *frame_condition)


def _check_fit(frame_condition: FrameCondition, noise_BFCHW: Tensor) -> None:
    latents, is_clean, noise = (tuple(part.shape) for part in (*frame_condition, noise_BFCHW))
    if latents != noise or is_clean != noise[:2]:
        raise ValueError(
            f"the given latent frames are {latents} with a mask of {is_clean}, the noise is {noise} "
            "(samples, frames, channels, height, width): give frames of the size, number and channels to be made"
        )
