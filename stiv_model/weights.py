"""Weights on disk, and how a stage's weights become the start of the next one."""

from pathlib import Path

import torch
from einops import repeat
from safetensors.torch import load_file, save_file
from torch import Tensor

from stiv_model import card
from stiv_model.settings import ModelSettings
from stiv_model.transformer import StivTransformer


def save(folder: Path, weights: dict[str, Tensor], settings: ModelSettings, is_video: bool) -> None:
    """Write weights and what they are weights of."""
    folder.mkdir(parents=True, exist_ok=True)
    card.write(folder, settings, is_video)
    save_file({name: weight.float().contiguous() for name, weight in weights.items()}, folder / card.WEIGHTS)


def load(folder: Path) -> StivTransformer:
    """Return the model of a checkpoint folder, to sample from.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    settings, is_video = card.read(folder)
    model = StivTransformer(settings, is_video)
    model.load_state_dict(load_file(folder / card.WEIGHTS))
    return model.eval().requires_grad_(False)


def initialise(model: StivTransformer, parent: Path) -> None:
    """Start `model` from the EMA weights in `parent`, inflating an image model where `model` is a video model.

    Raises:
        FileNotFoundError, ValueError: as `card.check_parent`.
    """
    card.check_parent(parent, model.settings, model.is_video)
    weights = load_file(parent / card.WEIGHTS)
    _, parent_is_video = card.read(parent)
    model.load_state_dict(inflate(weights, model) if model.is_video and not parent_is_video else weights)


def inflate(image: dict[str, Tensor], model: StivTransformer) -> dict[str, Tensor]:
    """Turn an image model's weights into those of the video model that shows a still picture.

    The patch kernel is spread evenly over the frames of a temporal patch, so that a repeated frame gives the
    image model's token; the last layer is repeated for each of them. Temporal attention is taken from `model`
    as it was initialised, with gain zero. Everything else is taken over.

    Returns:
        the weights for `model`; every name of it, and no other.
    """
    frames = model.temporal_patch
    own = {name: weight for name, weight in model.state_dict().items() if ".temporal_" in name}
    video = dict(image) | own
    video["patch_in.weight"] = repeat(image["patch_in.weight"], "D patch -> D (frames patch)", frames=frames) / frames
    video["patch_out.weight"] = repeat(image["patch_out.weight"], "patch D -> (frames patch) D", frames=frames)
    video["patch_out.bias"] = repeat(image["patch_out.bias"], "patch -> (frames patch)", frames=frames)
    if missing := model.state_dict().keys() ^ video.keys():
        raise ValueError(f"the image model's weights do not fit the video model: {sorted(missing)}")
    with torch.no_grad():
        return {name: weight.clone() for name, weight in video.items()}
