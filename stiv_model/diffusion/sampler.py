"""From noise to latents: a guided velocity, clean frames put back at every evaluation, and what integrates it.

Shapes: B batch, F latent frames, C channels, M micro-conditions.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from stiv_model.diffusion import guidance
from stiv_model.diffusion.frame_conditioning import NullImage, replace
from stiv_model.diffusion.rectified_flow import path, shift_times
from stiv_model.network.conditions import FrameCondition, Text
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import SamplerSettings

if TYPE_CHECKING:  # seconds to import, which ranks that validate need not wait
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Of x (B, ...) at time_B."""
OnStep = Callable[[int, Tensor], Tensor | None]
"""Called with the number of sampling steps done and x; may return another x to go on from."""


class _Solver(NamedTuple):
    is_stochastic: bool
    is_second_order: bool


_SOLVERS = {
    "euler": _Solver(is_stochastic=False, is_second_order=False),
    "heun": _Solver(is_stochastic=False, is_second_order=True),
    "euler_maruyama": _Solver(is_stochastic=True, is_second_order=False),
    "heun_sde": _Solver(is_stochastic=True, is_second_order=True),
}


def times(steps: int, shift: float) -> Tensor:
    """Return the times (steps + 1,) from 0 to 1, float64 so that 4 steps of 5 are 0.8 and not its neighbour."""
    return shift_times(torch.arange(steps + 1, dtype=torch.float64) / steps, shift)


def solve(
    velocity: Velocity,
    x: Tensor,
    times: Tensor,
    solver: str,
    draw_noise: Callable[[], Tensor] | None = None,
    on_step: OnStep = lambda done, x: None,
) -> Tensor:
    """Integrate from noise to data.

    `euler` and `heun` follow the ODE dx = v dt, with order 1 and 2. `euler_maruyama` and `heun_sde` follow the SDE
    with the same marginals (paper, appendix A), dx = (v + w/2 score) dt + sqrt(w) dW with
    score = (t v - x) / (1 - t). Any w(t) >= 0 keeps the marginals; w = 1 - t (SiT's "sigma" form) leaves the drift
    v + (t v - x) / 2 without a division. The noise of a step has the variance that w has over it, and Heun's two
    evaluations share it, which makes the weak order 2 (1 for Euler-Maruyama).

    In the last step w is 0, that is, it follows the ODE: noise that enters there would stay in the sample, with a
    deviation of one step's length. SiT's last step ("Mean") leaves out the noise but not the score that balances
    it, and so shrinks the law.

    Args:
        velocity: of x at time_B, data - noise.
        x: noise (B, ...).
        times: from 0 to 1, as `times` returns them.
        solver: as `SamplerSettings.solver`.
        draw_noise: fresh normal noise of x's shape, for the SDE.

    Raises:
        ValueError: a solver of the SDE has no source of noise.
    """
    is_stochastic, is_second_order = _SOLVERS[solver]
    if is_stochastic and draw_noise is None:
        raise ValueError(f"sampler.solver is {solver}, which adds noise at every step: pass draw_noise, or use heun")
    intervals = list(pairwise(times.tolist()))
    for done, (now, then) in enumerate(intervals, start=1):
        length, jump = then - now, torch.zeros_like(x)
        slope = velocity
        if draw_noise is not None and is_stochastic and done < len(intervals):
            slope = _drift(velocity)
            jump = math.sqrt(length * (1 - (now + then) / 2)) * draw_noise()
        first = slope(x, _each(now, x))
        moved = x + length * first + jump
        if is_second_order:
            moved = x + length / 2 * (first + slope(moved, _each(then, x))) + jump
        changed = on_step(done, moved)
        x = moved if changed is None else changed
    return x


def solve_with(
    scheduler: "FlowMatchEulerDiscreteScheduler",
    velocity: Velocity,
    x: Tensor,
    steps: int,
    on_step: OnStep = lambda done, x: None,
) -> Tensor:
    """Integrate from noise to data by a scheduler of diffusers; at the same shift it agrees with `euler`.

    Its sigma is our 1 - t and its model output our -v. It is told even sigmas, which it shifts: its own are spread
    from 1 to 1 / 1000 with 0 after them, so that the last step would go a thousandth of the way and the others more.
    """
    scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)], device=x.device)
    for done, timestep in enumerate(scheduler.timesteps, start=1):
        now = 1 - float(timestep) / scheduler.config["num_train_timesteps"]
        output = -velocity(x, _each(now, x))
        moved = scheduler.step(output, timestep, x, return_dict=False)[0]  # type: ignore[arg-type]  # any Tensor will do
        changed = on_step(done, moved)
        x = moved if changed is None else changed
    return x


def _each(time: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), time, dtype=x.dtype, device=x.device)


def _drift(velocity: Velocity) -> Velocity:
    def drift(x: Tensor, time_B: Tensor) -> Tensor:
        v = velocity(x, time_B)
        return v + (time_B.reshape(-1, *[1] * (x.ndim - 1)) * v - x) / 2

    return drift


class _ModelInputs(NamedTuple):
    """What the model is given in one evaluation."""

    x_BFCHW: Tensor
    text: Text
    given: FrameCondition | None


@dataclass(frozen=True)
class GuidedVelocity:
    """The velocity of a model under guidance: call it with x (B, F, C, H, W) and time_B, one time for all samples.

    Where given frames are replaced, they do not move: the velocity there, which training does not ask for, is 0, and
    CFG-renormalisation measures the frames that are made.

    Args:
        noise_BFCHW: what sampling starts from; given frames are noised with it where the image is dropped.
        null_text: features of the empty caption, or of what a sample shall not show, for as many samples.
        null_image: what the model was trained to see at given frames where the image is dropped.
    """

    model: StivTransformer
    noise_BFCHW: Tensor
    text: Text
    null_text: Text
    micro_BM: Tensor
    settings: SamplerSettings
    given: FrameCondition | None
    null_image: NullImage

    def __call__(self, x_BFCHW: Tensor, time_B: Tensor) -> Tensor:
        settings, scale = self.settings, self.settings.guidance_scale
        conditional = self.inputs(x_BFCHW, time_B, self.text, has_image=True)
        without_text = self.inputs(x_BFCHW, time_B, self.null_text, has_image=True)
        unconditional = self.inputs(x_BFCHW, time_B, self.null_text, has_image=False)
        match self.guidance_at(time_B):
            case "none":
                return self.evaluate([conditional], time_B)[0]
            case "text":
                v = self.evaluate([conditional, without_text], time_B)
                guided = guidance.text(v[0], v[1], scale)
            case "joint":
                v = self.evaluate([conditional, unconditional], time_B)
                guided = guidance.joint(v[0], v[1], scale)
            case "separate":
                v = self.evaluate([conditional, without_text, unconditional], time_B)
                guided = guidance.separate(v[0], v[1], v[2], scale, settings.image_guidance_scale)
        return guidance.renormalise(guided, v[0]) if settings.renormalise else guided

    def guidance_at(self, time_B: Tensor) -> Literal["none", "text", "joint", "separate"]:
        """Return the guidance that acts. Without given frames all three are `text`; where scales are 1 none acts."""
        settings = self.settings
        kind = "text" if self.given is None else settings.guidance
        scales = {settings.guidance_scale} | ({settings.image_guidance_scale} if kind == "separate" else set())
        is_inside = settings.guidance_start <= time_B[0] <= settings.guidance_end
        return kind if is_inside and scales != {1.0} else "none"

    def inputs(self, x_BFCHW: Tensor, time_B: Tensor, text: Text, has_image: bool) -> _ModelInputs:
        """Return what one evaluation is given: with the image, or as training shows a dropped one."""
        if has_image:
            return _ModelInputs(self.restore_clean_frames(x_BFCHW), text, self.told)
        if self.replaced is not None:
            clean, is_clean = self.replaced
            null = torch.zeros_like(clean) if self.null_image == "zeros" else path(clean, self.noise_BFCHW, time_B)
            x_BFCHW = replace(x_BFCHW, null, is_clean)
        told = None if self.told is None else self.told._replace(is_clean_BF=torch.zeros_like(self.told.is_clean_BF))
        return _ModelInputs(x_BFCHW, text, told)

    def evaluate(self, passes: list[_ModelInputs], time_B: Tensor) -> list[Tensor]:
        """Return the velocity of each pass: from one batch, or one after the other."""
        if self.settings.batch_guidance and len(passes) > 1:
            count = len(passes)
            every = _ModelInputs(
                torch.cat([one.x_BFCHW for one in passes]),
                Text(*_joined([one.text for one in passes])),
                None if self.told is None else FrameCondition(*_joined([one.given for one in passes if one.given])),
            )
            velocities = self.run(every, time_B.repeat(count), self.micro_BM.repeat(count, 1)).chunk(count)
        else:
            velocities = tuple(self.run(one, time_B, self.micro_BM) for one in passes)
        if self.replaced is None:
            return list(velocities)
        return [replace(v, torch.zeros_like(v), self.replaced.is_clean_BF) for v in velocities]

    def run(self, one: _ModelInputs, time_B: Tensor, micro_BM: Tensor) -> Tensor:
        """Return the model's velocity in the type of x: sums of steps stay precise where the model's numbers do not."""
        dtype = next(self.model.parameters()).dtype
        v = self.model(one.x_BFCHW.to(dtype), time_B, one.text, micro_BM, given=one.given)
        return v.to(one.x_BFCHW.dtype)

    def restore_clean_frames(self, x_BFCHW: Tensor) -> Tensor:
        """Return x with the given frames clean in their places."""
        return x_BFCHW if self.replaced is None else replace(x_BFCHW, *self.replaced)

    @property
    def replaced(self) -> FrameCondition | None:
        """Given frames that stand in x."""
        return None if self.model.settings.image_condition == "cross_attention" else self.given

    @property
    def told(self) -> FrameCondition | None:
        """Given frames that cross-attention sees."""
        return None if self.model.settings.image_condition == "replacement" else self.given


def _joined(rows: Sequence[tuple[Tensor, ...]]) -> Iterator[Tensor]:
    return (torch.cat(parts) for parts in zip(*rows, strict=True))


@torch.inference_mode()
def sample(
    model: StivTransformer,
    noise_BFCHW: Tensor,
    text: Text,
    null_text: Text,
    micro_BM: Tensor,
    settings: SamplerSettings,
    given: FrameCondition | None = None,
    null_image: NullImage = "noised",
    draw_noise: Callable[[], Tensor] | None = None,
    on_step: OnStep = lambda done, x: None,
    scheduler: "FlowMatchEulerDiscreteScheduler | None" = None,
) -> Tensor:
    """Return latents (B, F, C, H, W); the given frames in them are the given ones, bit for bit.

    Args:
        noise_BFCHW: what sampling starts from, float32 whatever the type of the model.
        null_text, null_image: see `GuidedVelocity`.
        draw_noise: fresh noise of the same shape at every call, for the solvers of the SDE.
        on_step: called with the number of sampling steps done and x, its given frames in place; what it returns,
            unless None, takes the place of x.
        scheduler: integrates instead of `settings.solver`, with its own shift.

    Raises:
        ValueError: the given frames do not fit the noise, or a solver of the SDE has no `draw_noise`.
    """
    if given is not None:
        _check_fit(given, noise_BFCHW)
    velocity = GuidedVelocity(model, noise_BFCHW, text, null_text, micro_BM, settings, given, null_image)

    def after(done: int, x: Tensor) -> Tensor:
        x = velocity.restore_clean_frames(x)
        changed = on_step(done, x)
        return x if changed is None else changed

    x = velocity.restore_clean_frames(noise_BFCHW)
    if scheduler is None:
        x = solve(velocity, x, times(settings.steps, settings.shift), settings.solver, draw_noise, after)
    else:
        x = solve_with(scheduler, velocity, x, settings.steps, after)
    return x if given is None else replace(x, given.latents_BFCHW, given.is_clean_BF)


def _check_fit(given: FrameCondition, noise_BFCHW: Tensor) -> None:
    latents, is_clean, noise = (tuple(part.shape) for part in (*given, noise_BFCHW))
    if latents != noise or is_clean != noise[:2]:
        raise ValueError(
            f"the given latent frames are {latents} with a mask of {is_clean}, the noise is {noise} "
            "(samples, frames, channels, height, width): give frames of the size, number and channels to be made"
        )
