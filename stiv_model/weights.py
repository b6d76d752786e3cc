"""Weights on disk, and how a stage's weights become the start of the next one.

A checkpoint folder holds `model.safetensors` (the EMA weights, float32) and `model.json` (what they are weights of).
"""

import json
from pathlib import Path

import torch
from einops import repeat
from safetensors.torch import load_file, save_file
from torch import Tensor

from stiv_model.settings import ModelSettings
from stiv_model.transformer import StivTransformer

WEIGHTS, CARD = "model.safetensors", "model.json"


def save(folder: Path, weights: dict[str, Tensor], settings: ModelSettings, is_video: bool) -> None:
    """Write weights and what they are weights of."""
    folder.mkdir(parents=True, exist_ok=True)
    card = {"is_video": is_video, "model": settings.model_dump()}
    (folder / CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
    save_file({name: weight.float().contiguous() for name, weight in weights.items()}, folder / WEIGHTS)


def read_card(folder: Path) -> tuple[ModelSettings, bool]:
    """Return the sizes of the model in a checkpoint folder, and whether it is a video model.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    if not (folder / CARD).exists():
        raise FileNotFoundError(f"{folder} holds no checkpoint ({CARD} is missing): train it first")
    card = json.loads((folder / CARD).read_text())
    return ModelSettings.model_validate(card["model"]), card["is_video"]


def load(folder: Path) -> StivTransformer:
    """Return the model of a checkpoint folder, to sample from.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    settings, is_video = read_card(folder)
    model = StivTransformer(settings, is_video)
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model.eval().requires_grad_(False)


def check_parent(parent: Path, settings: ModelSettings, is_video: bool) -> None:
    """Refuse to start a model from weights that are not of its kind.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the parent is a model of another size, or a video model while an image model is wanted.
    """
    found, parent_is_video = read_card(parent)
    there, here = found.model_dump(), settings.model_dump()
    if differ := ", ".join(f"{key} {there[key]} there, {here[key]} here" for key in here if there[key] != here[key]):
        raise ValueError(
            f"{parent} holds a model of another size ({differ}): set model.* in params.yaml back, or train "
            f"{parent} again"
        )
    if parent_is_video and not is_video:
        raise ValueError(f"{parent} holds a video model, which an image recipe (frames: 1) cannot start from")


def initialise(model: StivTransformer, parent: Path) -> None:
    """Start `model` from the EMA weights in `parent`, inflating an image model where `model` is a video model.

    Raises:
        FileNotFoundError, ValueError: as `check_parent`.
    """
    check_parent(parent, model.settings, model.is_video)
    weights = load_file(parent / WEIGHTS)
    _, parent_is_video = read_card(parent)
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
