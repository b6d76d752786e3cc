"""What a checkpoint folder says of itself; readable without torch, so that a wrong request fails at once.

A checkpoint folder holds `model.safetensors` (the EMA weights, float32) and `model.json` (what they are weights of).
"""

import json
from pathlib import Path

from stiv_model.settings import ModelSettings

WEIGHTS = "model.safetensors"
_CARD = "model.json"


def write(folder: Path, settings: ModelSettings, is_video: bool) -> None:
    card = {"is_video": is_video, "model": settings.model_dump()}
    (folder / _CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")


def read(folder: Path) -> tuple[ModelSettings, bool]:
    """Return the sizes of the model in a checkpoint folder, and whether it is a video model.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    if not (folder / _CARD).exists():
        raise FileNotFoundError(f"{folder} holds no checkpoint ({_CARD} is missing): train it first")
    card = json.loads((folder / _CARD).read_text())
    return ModelSettings.model_validate(card["model"]), card["is_video"]


def check_parent(parent: Path, settings: ModelSettings, is_video: bool) -> None:
    """Refuse to start a model from weights that are not of its kind.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the parent is a model of another size, or a video model while an image model is wanted.
    """
    found, parent_is_video = read(parent)
    there, here = found.model_dump(), settings.model_dump()
    if differ := ", ".join(f"{key} {there[key]} there, {here[key]} here" for key in here if there[key] != here[key]):
        raise ValueError(
            f"{parent} holds a model of another size ({differ}): set model.* in params.yaml back, or train "
            f"{parent} again"
        )
    if parent_is_video and not is_video:
        raise ValueError(f"{parent} holds a video model, which an image recipe (frames: 1) cannot start from")
