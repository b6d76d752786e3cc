"""What a pipeline is asked for, checked and brought into the form that the sampler takes.

Shapes: P prompts, F frames, C channels, H height, W width, M micro-conditions.
"""

from collections.abc import Callable, Collection, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
import transformers
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from stiv_model.diffusion.frame_conditioning import clean_frame_mask
from stiv_model.encoders.text import encode as encode_text
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.pipeline.components import PipelineDefaults
from stiv_model.settings import LearnedSettings, ModelSettings, Pattern, SamplerSettings, modes_by_length
from stiv_model.weights.metadata import Trained

Texts = str | Sequence[str]
"""One, or a list or tuple of them."""
Generators = torch.Generator | Sequence[torch.Generator] | None
"""One for all videos, or one per video; None is torch's own."""
_OUTPUTS = ("pil", "np", "pt", "latent")
_UNFIT = {
    "use_dynamic_shifting": "the shift of this model does not depend on the size: set_shift instead",
    "invert_sigmas": "the model goes from noise to data: leave it out",
    "stochastic_sampling": 'its noise is of no generator: use solver="euler_maruyama" instead',
}
"""Options of the scheduler that no call can follow, with the reason."""


def check_call(scheduler: Any, output_type: str) -> None:
    """Refuse a scheduler of another kind of diffusion or set up for one, and an unknown form of the videos.

    Raises:
        ValueError: with the value and those allowed.
    """
    if output_type not in _OUTPUTS:
        raise ValueError(f"output_type is {output_type}: use one of {', '.join(_OUTPUTS)}")
    if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        raise ValueError(
            f"the scheduler is a {type(scheduler).__name__}, but the model makes velocities of a rectified flow: use "
            "FlowMatchEulerDiscreteScheduler, and choose another solver by `solver`"
        )
    for option, reason in _UNFIT.items():
        if scheduler.config.get(option):
            raise ValueError(f"the scheduler has {option} {scheduler.config[option]}, but {reason}")


def check_size(model: ModelSettings, is_video: bool, frames: int, height: int, width: int, downsampling: int) -> None:
    """Refuse a video that the model cannot cut into its patches, or that has more of them than learned positions.

    Raises:
        ValueError: with the value that does not fit and what it must fit.
    """
    if not is_video and frames != 1:
        raise ValueError(f"num_frames is {frames}, but this is an image model: it makes 1 frame; load a video model")
    if is_video:
        check_frames(frames, model.temporal_patch)
    least = downsampling * model.spatial_patch
    for name, value in (("height", height), ("width", width)):
        if value % least:
            raise ValueError(
                f"{name} is {value} pixels, but a token is {least} pixels on each side ({downsampling} of the VAE x "
                f"{model.spatial_patch} of the patch): use a multiple of {least}"
            )
    if isinstance(at := model.positions, LearnedSettings):
        per_token = model.temporal_patch if is_video else 1
        _check_positions("num_frames", frames, per_token, at.num_temporal)
        _check_positions("height", height, least, at.rows)
        _check_positions("width", width, least, at.columns)


def check_frames(frames: int, temporal_patch: int) -> None:
    """Refuse a length that a video model cannot cut into its patches.

    Raises:
        ValueError: with the nearest lengths that it can.
    """
    if frames % temporal_patch:
        below = frames - frames % temporal_patch
        nearest = " or ".join(str(each) for each in (below, below + temporal_patch) if each)
        raise ValueError(f"num_frames is {frames}, but the temporal patch is {temporal_patch}: use {nearest}")


def _check_positions(name: str, value: int, size: int, have: int) -> None:
    if value > have * size:
        raise ValueError(
            f"{name} is {value}, {value // size} tokens of {size}, but the model has learned {have} positions there: "
            f"use {have * size} at most"
        )


def check_guidance(settings: SamplerSettings, has_given: bool, trained: Trained | None) -> None:
    """Refuse guidance away from a text or image that the model has never gone without; unknown training may do all.

    Raises:
        ValueError: with the scale and the dropout that it needs.
    """
    if trained is None:
        return
    has_image_null = has_given and settings.guidance != "text"
    scales = {"guidance_scale": settings.guidance_scale}
    if has_given and settings.guidance == "separate":
        scales["image_guidance_scale"] = settings.image_guidance_scale
    guided = {name: scale for name, scale in scales.items() if scale != 1}
    for name, scale in guided.items():
        if trained.text_dropout == 0:
            raise ValueError(
                f"{name} is {scale}, but the model was trained with text_dropout 0 and knows no empty text: use "
                f"{name}=1"
            )
        if has_image_null and trained.image_dropout == 0:
            raise ValueError(
                f'guidance is "{settings.guidance}" with {name} {scale}, but the model was trained with image_dropout '
                '0 and has never gone without its given frames: use guidance="text"'
            )


_RECIPES: dict[Pattern, str] = {
    "none": "t2v",
    "first": "stiv",
    "first_four": "v2v",
    "first_and_last": "interpolation",
    "every_second": "tup",
    "views": "views",
}
"""Recipes of params.yaml and docs/model.md that learn each pattern of given frames."""


def check_trained(given: Collection[int], frames: int, stride_frames: int, trained: Trained | None) -> None:
    """Refuse given frames, a length or a stride that the model has never learned from; unknown training may do all.

    Raises:
        ValueError: as `not_trained`, with both values and what would learn it.
    """
    if reason := not_trained(given, frames, stride_frames, trained):
        raise ValueError(f"{reason}; untrained=True (--untrained) goes on all the same")


def not_trained(given: Collection[int], frames: int, stride_frames: int, trained: Trained | None) -> str | None:
    """Say what of a call the training never had; None where it had all of it, or is unknown.

    Args:
        given: places of the given frames.
        frames: of the video.
        stride_frames: source frames from one frame to the next; an image has none.
    """
    if trained is None:
        return None
    every = learned_modes(trained)
    learned = [mode for mode in every if mode.frames == frames]
    if not learned:
        known = " or ".join(map(str, sorted({mode.frames for mode in every})))
        return f"num_frames is {frames}, but the model was trained (recipe {trained.recipe_name}) with {known}"
    strides = sorted({mode.stride_frames for mode in learned if mode.given == frozenset(given)})
    if not strides:
        known = " or ".join(sorted({named_places(mode.given) for mode in learned}, reverse=True))
        pattern = _pattern_of(frozenset(given), frames)
        recipe = f", as recipe {_RECIPES[pattern]} has it" if isinstance(pattern, str) else ""
        asked = pattern if isinstance(pattern, str) else list(pattern)
        verb = "are" if len(given) > 1 else "is"
        return (
            f"{named_places(given)} {verb} given, but the model was trained (recipe {trained.recipe_name}) with "
            f"{known}: that needs a training with clean_frames: {asked}{recipe}"
        )
    if frames > 1 and stride_frames not in strides:
        known = " or ".join(map(str, strides))
        return (
            f"stride_frames is {stride_frames}, but the model was trained (recipe {trained.recipe_name}) with {known} "
            f"for {named_places(given)} given"
        )
    return None


class Learned(NamedTuple):
    """A way in which a training gave frames."""

    given: frozenset[int]
    """The places of the given frames."""
    stride_frames: int
    """Source frames from one frame to the next."""
    frames: int
    """Latent frames per sample."""


def learned_modes(trained: Trained) -> list[Learned]:
    """Return every way in which a training gave frames; with dropout of the image also that of giving none."""
    found = []
    for frames, modes in modes_by_length(trained.clean_frames, trained.frames).items():
        for mode in modes:
            places = _places(mode.clean_frames, frames)
            without = [frozenset[int]()] if places and trained.image_dropout else []
            found += [Learned(each, mode.stride * trained.stride_frames, frames) for each in (places, *without)]
    return found


def _places(pattern: Pattern, frames: int) -> frozenset[int]:
    return frozenset(clean_frame_mask(pattern, frames).nonzero().flatten().tolist())


def _pattern_of(given: frozenset[int], frames: int) -> Pattern:
    named = (pattern for pattern in _RECIPES if _places(pattern, frames) == given)
    return next(named, tuple(sorted(given)))


def named_places(given: Collection[int]) -> str:
    """Return the places of given frames in words."""
    if not given:
        return "no frame"
    *others, last = map(str, sorted(given))
    return f"frames {', '.join(others)} and {last}" if others else f"frame {last}"


def prompts_of(prompt: Texts) -> list[str]:
    """Return the prompts.

    Raises:
        ValueError: none, or something that is no text.
    """
    prompts = _texts("prompt", prompt)
    if not prompts:
        raise ValueError(f"prompt is {prompt!r}: give a text, or a list of at least one")
    return prompts


def negatives_of(negative_prompt: Texts | None, prompts: int) -> list[str]:
    """Return what stands for no text with each prompt: the empty text, one for all, or one per prompt.

    Raises:
        ValueError: not one per prompt, or something that is no text.
    """
    if negative_prompt is None or isinstance(negative_prompt, str):
        return [negative_prompt or ""] * prompts
    negatives = _texts("negative_prompt", negative_prompt)
    if len(negatives) != prompts:
        raise ValueError(f"negative_prompt has {len(negatives)} texts for {prompts} prompts: give one, or as many")
    return negatives


def _texts(name: str, value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} is {_short(value)}: give a text, or a list of texts")
    for place, text in enumerate(value):
        if not isinstance(text, str):
            raise ValueError(f"{name}[{place}] is {_short(text)}: give a text")
    return list(value)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"a {type(value).__name__}, {shown[:60]} ..."


def count_of(name: str, value: Any) -> int:
    """Return a number of things.

    Raises:
        ValueError: not a whole number of 1 or more.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} is {_short(value)}: give a whole number of 1 or more")
    return int(value)


def callback_inputs_of(callback: Any, names: Collection[str] | None, known: Collection[str]) -> list[str]:
    """Return the names of the tensors that a callback is given: its own where it is one of diffusers' classes.

    Args:
        callback: what is called at the end of a sampling step, or None.
        names: as the call was asked; None is all.
        known: those that there are.

    Raises:
        ValueError: it cannot be called, or asks for a tensor that there is not.
    """
    if callback is not None and not callable(callback):
        raise ValueError(
            f"callback_on_step_end is {_short(callback)}: give a function of the pipeline, the sampling step, its "
            "timestep and the tensors"
        )
    where = "callback_on_step_end_tensor_inputs"
    if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
        names, where = callback.tensor_inputs, f"{type(callback).__name__}.tensor_inputs"
    if names is None:
        return list(known)
    if isinstance(names, str) or not isinstance(names, Collection) or not set(names) <= set(known):
        raise ValueError(f"{where} is {_short(names)}: use a list of those among {', '.join(known)}")
    return list(names)


def changed_latents(returned: Any, x: Tensor) -> Tensor | None:
    """Return the latents that a callback wants in the place of x, of its shape, type and device; None leaves x.

    Args:
        returned: what the callback returned: a dict, or None for no change.
        x: latents (B, F, C, H, W).

    Raises:
        ValueError: it is something else, or latents of another shape.
    """
    if returned is None:
        return None
    if not isinstance(returned, dict):
        raise ValueError(f'callback_on_step_end returned {_short(returned)}: return {{"latents": ...}}, or None')
    if unknown := set(returned) - {"latents"}:
        raise ValueError(f"callback_on_step_end returned {_short(unknown.pop())}: it may change latents only")
    latents = returned.get("latents")
    if latents is None:
        return None
    _check_latents("callback_on_step_end returned latents that are", latents, tuple(x.shape))
    return latents.detach().to(x)


def latents_of(latents: Tensor, shape: tuple[int, ...], videos: int, device: torch.device) -> Tensor:
    """Return given noise (videos, *shape) in float32 on the device.

    Raises:
        ValueError: another type or shape, or a value that is not finite.
    """
    _check_latents("latents is", latents, (videos, *shape))
    if not latents.isfinite().all():
        raise ValueError("latents has values that are not finite: give normal noise")
    return latents.detach().to(device, torch.float32)


def _check_latents(what: str, latents: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(latents, Tensor) or not latents.is_floating_point():
        kind = f"a tensor of {latents.dtype}" if isinstance(latents, Tensor) else f"a {type(latents).__name__}"
        raise ValueError(f"{what} {kind}: give a tensor of floats")
    if tuple(latents.shape) != shape:
        raise ValueError(
            f"{what} {' x '.join(map(str, latents.shape))}, but the call makes {' x '.join(map(str, shape))} (videos, "
            "frames, channels, height, width of latents): give that shape"
        )


def texts_of(
    encoder: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
    prompts: list[str],
    negative: list[str],
    repeats: int,
    tokens: int,
    device: torch.device,
) -> tuple[Text, Text]:
    """Return the features of the prompts and of what stands for no text, `repeats` times each.

    Raises:
        ValueError: a text of more than `tokens`.
    """
    features = encode_text(encoder, tokenizer, [*prompts, *negative], tokens, cut=False, device=device)
    pairs = [part.repeat_interleave(repeats, dim=0).chunk(2) for part in features]
    return Text(*(positive for positive, _ in pairs)), Text(*(without for _, without in pairs))


def noise_of(shape: tuple[int, ...], videos: int, generator: Generators, device: torch.device) -> Callable[[], Tensor]:
    """Return what draws noise (videos, *shape), each video from its generator and on the generator's device.

    Without one, torch's own of the CPU is taken: `torch.manual_seed` then means the same on each device.

    Raises:
        ValueError: something that is no generator, or not one per video.
    """
    generators: list[Any] = list(generator) if isinstance(generator, list | tuple) else [generator] * videos
    for one in generators if generator is not None else ():
        if not isinstance(one, torch.Generator):
            raise ValueError(f"generator is or has {_short(one)}: give torch.Generator().manual_seed(SEED)")
    if len(generators) != videos:
        raise ValueError(f"generator has {len(generators)} generators for {videos} videos: give one, or one per video")

    def draw() -> Tensor:
        places = ["cpu" if one is None else one.device for one in generators]
        each = [torch.randn(shape, generator=one, device=at) for one, at in zip(generators, places, strict=True)]
        return torch.stack([noise.to(device) for noise in each])

    return draw


def micro_of(asked: PipelineDefaults) -> Tensor:
    """Return the micro-conditions (1, M) of an uncropped source; an image has no stride, as in training."""
    micro = dict.fromkeys(MICRO_CONDITIONS, 0) | {
        "height": asked.sampler.original_height,
        "width": asked.sampler.original_width,
        "stride_frames": 0 if asked.frames == 1 else asked.stride_frames,
        "frames": asked.frames,
    }
    return torch.tensor([[float(micro[name]) for name in MICRO_CONDITIONS]])
