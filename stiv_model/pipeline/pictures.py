"""Given frames: checked, brought to the range that the VAE takes, and coded.

Shapes: P prompts, F frames, C channels, H height, W width.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from stiv_model.encoders.pixels import to_pixels
from stiv_model.encoders.vae import Autoencoder, encode
from stiv_model.network.conditions import FrameCondition
from stiv_model.pipeline.components import PipelineDefaults
from stiv_model.weights.metadata import Trained

Picture = Image | np.ndarray | Tensor
"""RGB, as a call returns it: PIL, an array (H, W, 3) or a tensor (3, H, W); uint8, or floats from 0 to 1."""
Pictures = Picture | Sequence[Picture]
"""One for all prompts, or one per prompt: a sequence, an array (P, H, W, 3) or a tensor (P, 3, H, W)."""
Video = Sequence[Picture] | np.ndarray | Tensor
"""Frames in their order, the same for all prompts: a sequence, an array (T, H, W, 3) or a tensor (T, 3, H, W)."""


class Asked(NamedTuple):
    """Pictures that are given for one frame."""

    where: str
    """The argument, for messages."""
    pictures: Pictures


def given_pictures(
    image: Pictures | None,
    frames: Mapping[int, Pictures] | None,
    num_frames: int,
    trained: Trained | None,
    last_image: Pictures | None = None,
    video: Video | None = None,
) -> dict[int, Asked]:
    """Return the given pictures by frame: those of `video` from frame 0 on, `image` at 0 and `last_image` at the end.

    `image` is frame 1 too where the model's views start there.

    Raises:
        ValueError: `frames` is no mapping from places, `video` no sequence of pictures, a frame is outside the video or
            given twice, or none is left to make.
    """
    given: dict[int, Asked] = {}
    for index, each in _asked(image, frames, num_frames, trained, last_image, video):
        if index in given:
            raise ValueError(
                f"{each.where} is frame {index}, and {given[index].where} is given too: leave one of them out"
            )
        if not 0 <= index < num_frames:
            raise ValueError(f"{each.where} is given, but the video has frames 0 to {num_frames - 1}")
        given[index] = each
    if len(given) == num_frames:
        raise ValueError(f"all {num_frames} frames are given (num_frames {num_frames}): leave one to make")
    return dict(sorted(given.items()))


def _asked(
    image: Pictures | None,
    frames: Mapping[int, Pictures] | None,
    num_frames: int,
    trained: Trained | None,
    last_image: Pictures | None,
    video: Video | None,
) -> Iterator[tuple[int, Asked]]:
    """Give each picture with its place, those of `frames` first."""
    if frames is not None and not isinstance(frames, Mapping):
        raise ValueError(
            f"frames is a {type(frames).__name__}: give pictures by their place, such as frames={{0: image}}"
        )
    for index, pictures in (frames or {}).items():
        if isinstance(index, bool) or not isinstance(index, Integral):
            raise ValueError(f"frames[{index!r}] is given, but places are whole numbers from 0")
        yield int(index), Asked(f"frames[{index}]", pictures)
    if video is not None:
        is_batch = isinstance(video, list | tuple) or (isinstance(video, np.ndarray | Tensor) and video.ndim == 4)
        if not is_batch or not len(video):
            raise ValueError("video is no sequence of pictures: give a list, an array (T, H, W, 3) or (T, 3, H, W)")
        yield from ((index, Asked(f"video[{index}]", picture)) for index, picture in enumerate(video))
    if image is not None:
        is_views = trained is not None and trained.clean_frames == "views"
        yield from ((index, Asked("image", image)) for index in ((0, 1) if is_views else (0,)))
    if last_image is not None:
        yield num_frames - 1, Asked("last_image", last_image)


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
    """Return the pictures of one frame, from -1 to 1, (1 or P, 3, H, W): one, or one per prompt.

    Raises:
        ValueError: another size, number of channels, type or range, or not one per prompt.
    """
    where, pictures = asked
    is_batch = isinstance(pictures, list | tuple) or (isinstance(pictures, np.ndarray | Tensor) and pictures.ndim == 4)
    each: Sequence[Any] = list(pictures) if is_batch else [pictures]  # type: ignore[arg-type]  # a batch is a sequence
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
        if picture.dtype == np.uint8:
            return to_pixels(picture[None].copy())[0]
        if not np.issubdtype(picture.dtype, np.floating):
            raise ValueError(f"{where} is an array of {picture.dtype}: give uint8, 0 to 255, or floats from 0 to 1")
        return _from_fractions(torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1), where, picture.dtype)
    if isinstance(picture, Tensor):
        _check_shape(picture.shape, (3, height, width), where, "channels, height, width")
        if picture.dtype == torch.uint8:
            return to_pixels(picture.permute(1, 2, 0)[None].cpu().numpy().copy())[0]
        if not picture.is_floating_point():
            raise ValueError(f"{where} is a tensor of {picture.dtype}: give uint8, 0 to 255, or floats from 0 to 1")
        return _from_fractions(picture.detach().float().cpu(), where, picture.dtype)
    raise ValueError(f"{where} is a {type(picture).__name__}: give a PIL image, an array or a tensor")


def _from_fractions(values: Tensor, where: str, dtype: Any) -> Tensor:
    """Turn values from 0 to 1 into those from -1 to 1, which the VAE takes."""
    least, most = values.min().item(), values.max().item()
    if not (least >= -1 and most <= 1):
        raise ValueError(f"{where} has values of {dtype} from {least} to {most}: give floats from 0 to 1")
    if least >= 0:
        return 2 * values - 1
    warnings.warn(
        f"{where} has values from {least} to {most} and is taken for a picture from -1 to 1, as diffusers does; one "
        "whose values are all 0 or more cannot be told from a picture from 0 to 1: give (image + 1) / 2",
        FutureWarning,
        stacklevel=2,
    )
    return values


def _check_shape(found: Sequence[int], wanted: tuple[int, ...], where: str, names: str) -> None:
    if tuple(found) != wanted:
        raise ValueError(
            f"{where} is {' x '.join(map(str, found))} ({names}), but the video is {' x '.join(map(str, wanted))}: "
            "resize or crop it to the video, or set height and width"
        )
