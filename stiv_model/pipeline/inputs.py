"""What a pipeline is asked for, checked and brought into the form that the sampler takes.

Shapes: P prompts, F frames, C channels, H height, W width, M micro-conditions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from PIL.Image import Image
from torch import Tensor

from stiv_model.encoders.pixels import to_pixels
from stiv_model.encoders.text import encode as encode_text
from stiv_model.encoders.vae import Autoencoder, encode
from stiv_model.network.conditions import MICRO_CONDITIONS, FrameCondition, Text
from stiv_model.pipeline.components import PipelineDefaults
from stiv_model.settings import ModelSettings, SamplerSettings
from stiv_model.weights.metadata import Trained

Picture = Image | np.ndarray | Tensor
"""RGB: PIL, uint8 (H, W, 3), or values from -1 to 1 (3, H, W)."""
Pictures = Picture | Sequence[Picture]
"""One for all prompts, or one per prompt."""


class Asked(NamedTuple):
    """Pictures that are given for one frame."""

    where: str
    """The argument, for messages."""
    pictures: Pictures


Generators = torch.Generator | list[torch.Generator] | None
_OUTPUTS = ("pil", "np", "pt", "latent")


def check_call(scheduler: Any, output_type: str) -> None:
    """Refuse a scheduler of another kind of diffusion, and an unknown form of the videos.

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


def check_size(model: ModelSettings, is_video: bool, frames: int, height: int, width: int, downsampling: int) -> None:
    """Refuse a video that the model cannot cut into its patches.

    Raises:
        ValueError: with the value that does not fit and what it must fit.
    """
    if not is_video and frames != 1:
        raise ValueError(f"num_frames is {frames}, but this is an image model: it makes 1 frame; load a video model")
    if is_video and frames % model.temporal_patch:
        raise ValueError(
            f"num_frames is {frames}, but the temporal patch is {model.temporal_patch}: use a multiple of it"
        )
    least = downsampling * model.spatial_patch
    for name, value in (("height", height), ("width", width)):
        if value % least:
            raise ValueError(
                f"{name} is {value} pixels, but a token is {least} pixels on each side ({downsampling} of the VAE x "
                f"{model.spatial_patch} of the patch): use a multiple of {least}"
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


def given_pictures(
    image: Pictures | None,
    frames: Mapping[int, Pictures] | None,
    num_frames: int,
    trained: Trained | None,
) -> dict[int, Asked]:
    """Return the given pictures by frame: `image` is frame 0, and frame 1 too where the model's views start there.

    Raises:
        ValueError: a frame outside the video, one given twice, or none left to make.
    """
    given = {index: Asked(f"frames[{index}]", pictures) for index, pictures in (frames or {}).items()}
    if image is not None:
        is_views = trained is not None and trained.clean_frames == "views"
        for index in (0, 1) if is_views else (0,):
            if index in given:
                raise ValueError(f"image is frame {index}, and frames[{index}] is given too: leave one of them out")
            given[index] = Asked("image", image)
    for index in given:
        if not 0 <= index < num_frames:
            raise ValueError(f"frames[{index}] is given, but the video has frames 0 to {num_frames - 1}")
    if len(given) == num_frames:
        raise ValueError(f"all {num_frames} frames are given (num_frames {num_frames}): leave one to make")
    return dict(sorted(given.items()))


def given_of(
    autoencoder: Autoencoder,
    given: Mapping[int, Asked],
    prompts: int,
    shape: tuple[int, ...],
    size: PipelineDefaults,
    device: torch.device,
) -> FrameCondition | None:
    """Return the given frames of each prompt, coded; None where there are none.

    Args:
        shape: of the latents of one video, (F, C, H, W).
        size: height and width of the pictures, and the frames that the VAE codes at once.

    Raises:
        ValueError: as `pixels_of`.
    """
    if not given:
        return None
    pixels = [pixels_of(each, prompts, size.height, size.width) for each in given.values()]
    encoded = encode(autoencoder, torch.cat(pixels).to(device), size.vae_batch_frames).float()
    latents_PFCHW = torch.zeros(prompts, *shape, device=device)
    is_clean_PF = torch.zeros(prompts, shape[0], dtype=torch.bool, device=device)
    for index, latents_PCHW in zip(given, encoded.split([len(each) for each in pixels]), strict=True):
        latents_PFCHW[:, index] = latents_PCHW
        is_clean_PF[:, index] = True
    return FrameCondition(latents_PFCHW, is_clean_PF)


def pixels_of(asked: Asked, prompts: int, height: int, width: int) -> Tensor:
    """Return the pictures of one frame (1 or P, C, H, W), from -1 to 1: one, or one per prompt.

    Raises:
        ValueError: another size, number of channels, type or range, or not one per prompt.
    """
    where, pictures = asked
    each: Sequence[Any] = pictures if isinstance(pictures, list | tuple) else [pictures]
    if len(each) not in (1, prompts):
        raise ValueError(f"{where} has {len(each)} pictures for {prompts} prompts: give one, or one per prompt")
    return torch.stack([_to_pixels(picture, where, height, width) for picture in each])


def _to_pixels(picture: Picture, where: str, height: int, width: int) -> Tensor:
    if isinstance(picture, Image):
        if picture.mode != "RGB":
            raise ValueError(f'{where} is a picture of mode {picture.mode}: convert it to RGB, image.convert("RGB")')
        picture = np.asarray(picture)
    if isinstance(picture, np.ndarray):
        _check_shape(picture.shape, (height, width, 3), where, "height, width, channels")
        if picture.dtype != np.uint8:
            raise ValueError(f"{where} is an array of {picture.dtype}: give uint8, 0 to 255")
        return to_pixels(picture[None].copy())[0]
    if isinstance(picture, Tensor):
        _check_shape(picture.shape, (3, height, width), where, "channels, height, width")
        least, most = picture.min().item(), picture.max().item()
        if not (picture.is_floating_point() and least >= -1 and most <= 1):
            raise ValueError(f"{where} is a tensor of {picture.dtype} from {least} to {most}: give floats from -1 to 1")
        return picture.float().cpu()
    raise ValueError(f"{where} is a {type(picture).__name__}: give a PIL image, a uint8 array or a tensor")


def _check_shape(found: Sequence[int], wanted: tuple[int, ...], where: str, names: str) -> None:
    if tuple(found) != wanted:
        raise ValueError(
            f"{where} is {' x '.join(map(str, found))} ({names}), but the video is {' x '.join(map(str, wanted))}: "
            "resize or crop it to the video, or set height and width"
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
        ValueError: not one negative text per prompt, or a text of more than `tokens`.
    """
    if len(negative) != len(prompts):
        raise ValueError(f"negative_prompt has {len(negative)} texts for {len(prompts)} prompts: give one, or as many")
    features = encode_text(encoder, tokenizer, [*prompts, *negative], tokens, cut=False, device=device)
    pairs = [part.repeat_interleave(repeats, dim=0).chunk(2) for part in features]
    return Text(*(positive for positive, _ in pairs)), Text(*(without for _, without in pairs))


def noise_of(shape: tuple[int, ...], videos: int, generator: Generators, device: torch.device) -> Callable[[], Tensor]:
    """Return what draws noise (videos, *shape), each video from its generator and on the generator's device.

    Raises:
        ValueError: a list of generators that is not one per video.
    """
    generators = generator if isinstance(generator, list) else [generator] * videos
    if len(generators) != videos:
        raise ValueError(f"generator has {len(generators)} generators for {videos} videos: give one, or one per video")

    def draw() -> Tensor:
        places = [device if one is None else one.device for one in generators]
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
