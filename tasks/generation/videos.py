"""Videos from trained weights, for any prompt: of a checkpoint, or of a pipeline folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stiv_model.diffusion import frame_conditioning
from stiv_model.encoders import devices
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.settings import Device, Pattern, Precision, SamplerSettings, TextSettings, VaeSettings
from tasks.latents.settings import LatentSettings


def load(
    checkpoint: Path,
    vae: VaeSettings,
    text: TextSettings,
    latents: LatentSettings,
    sampler: SamplerSettings,
    precision: Precision,
    device: Device,
) -> StivPipeline:
    """Load a checkpoint of a video model, with its VAE and text encoder, as a pipeline without progress bars.

    Args:
        checkpoint: folder of trained weights.
        latents: size of the videos that it makes.
        precision: of the model; the encoders have their own.
        device: of all three.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it is of an image model, the encoders are not those it was trained with, or there is no such device.
    """
    place = devices.check(device, "devices.sampling")  # before anything is read
    size = (latents.height, latents.width, latents.frames, latents.stride_frames)
    pipeline = StivPipeline.from_checkpoint(checkpoint, vae, text, *size, sampler)
    return _prepared(pipeline, checkpoint, precision, place)


def open_folder(name: str, precision: Precision, device: Device) -> StivPipeline:
    """Load a pipeline folder of a video model, as `load` does a checkpoint; size and sampler are the folder's own.

    Args:
        name: the folder, or `ORGANISATION/NAME` of a hub.

    Raises:
        FileNotFoundError, ValueError: as `StivPipeline.from_pretrained`; or it is of an image model, or there is no
            such device.
    """
    place = devices.check(device, "devices.sampling")
    return _prepared(StivPipeline.from_pretrained(name), name, precision, place)


def _prepared(pipeline: StivPipeline, name: object, precision: Precision, place: torch.device) -> StivPipeline:
    check_is_video(pipeline.transformer.is_video, name)
    # diffusers' own `to` warns of modules to be kept in float32, of which there are none
    torch.nn.Module.to(pipeline.transformer, getattr(torch, precision))
    pipeline.to(place)
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    return pipeline


def check_is_video(is_video: bool, name: object) -> None:
    """Refuse an image model.

    Args:
        name: of the model, for the message.

    Raises:
        ValueError: it is one.
    """
    if not is_video:
        raise ValueError(f"{name} holds an image model: videos need one of t2v and what comes after it")


def make_videos(
    pipeline: StivPipeline,
    prompts: list[str],
    seeds: list[int],
    pattern: Pattern,
    sources: list[np.ndarray] | None,
    asked: Mapping[str, Any] | None = None,
) -> list[np.ndarray]:
    """Return one video, uint8 RGB (T, H, W, 3), per prompt.

    Args:
        pipeline: as `load` returns it.
        prompts: what the videos show, in words.
        seeds: seeds of the starting noise, one per prompt; a video depends on its own seed only.
        pattern: which frames are conditions (clean frames).
        sources: a video per prompt, uint8 RGB (T, H, W, 3), from which the clean frames come; None for pattern `none`.
        asked: more arguments of the call.
    """
    frames = {}
    if sources is not None:
        places = frame_conditioning.clean_frame_mask(pattern, len(sources[0])).nonzero().flatten().tolist()
        frames = {place: [video[place] for video in sources] for place in places}
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    (videos,) = pipeline(
        prompts, frames=frames, generator=generators, output_type="np", return_dict=False, **(asked or {})
    )
    return list((255 * videos).round().astype(np.uint8))
