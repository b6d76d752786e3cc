"""Weights on disk: written with what they are weights of, and read only where every name and shape agrees."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import ModelSettings
from stiv_model.weights import metadata
from stiv_model.weights.metadata import CheckpointMetadata, Trained
from stiv_model.weights.streaming_file import StreamedFile


def save(
    folder: Path,
    weights: Iterable[tuple[str, Tensor]],
    settings: ModelSettings,
    is_video: bool,
    trained: Trained | None = None,
) -> None:
    """Write weights and what they are weights of; those of a training are its EMA, and the file says so.

    Args:
        folder: gets model.safetensors and model.json, in the place of what it had.
        weights: names and tensors of `shapes`, in any order; each is written as float32 before the next is asked for.
        settings: of the model, as `is_video`.
        trained: what the model was trained on and for; None of weights that no training made.

    Raises:
        ValueError: they are not the weights of such a model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metadata.write(folder, CheckpointMetadata(model=settings, is_video=is_video, trained=trained))
    header = {"averaged": trained.averaged} if trained else None
    with create(folder / metadata.WEIGHTS, settings, is_video, header) as file:
        for name, weight in weights:
            file.put(name, weight.float())


def create(path: Path, settings: ModelSettings, is_video: bool, header: dict[str, str] | None) -> StreamedFile:
    """Return a file that takes the weights of such a model one at a time; an older one of that name is gone.

    Args:
        path: of the file.
        settings: of the model, as `is_video`: they say the names and shapes.
        header: text for the file's header.
    """
    path.unlink(missing_ok=True)  # not overwritten: who has mapped it keeps it
    return StreamedFile(path, dict(sorted(shapes(settings, is_video).items())), header)


def load(folder: Path) -> StivTransformer:
    """Return the model of a checkpoint folder, to sample from.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the file does not hold the weights of this model.
    """
    found = metadata.read(folder)
    return build(found.model, found.is_video, read(folder / metadata.WEIGHTS, found.model, found.is_video))


def build(settings: ModelSettings, is_video: bool, weights: Mapping[str, Tensor]) -> StivTransformer:
    """Return a model that uses these weights, by name and in the shapes of `shapes`, not copies; it does not train."""
    with torch.device("meta"):
        model = StivTransformer(settings, is_video, is_filled=False)
    model.load_state_dict(dict(weights), assign=True)
    return model.eval().requires_grad_(False)


def check_there(path: Path) -> Path:
    """Return the path of a file of weights, if there is one.

    Raises:
        FileNotFoundError: there is none.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: train {path.parent} again")
    return path


def read(path: Path, settings: ModelSettings, is_video: bool) -> dict[str, Tensor]:
    """Return the weights of such a model, mapped into memory: pages are read when they are used.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or a name is missing, too many, or of another shape.
    """
    try:
        found = load_file(check_there(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file ({error}): train {path.parent} again") from error
    wanted = shapes(settings, is_video)
    misshapen = {
        name: f"{name} {tuple(found[name].shape)}, wanted {tuple(wanted[name])}"
        for name in found.keys() & wanted.keys()
        if found[name].shape != wanted[name]
    }
    wrong = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unknown": sorted(found.keys() - wanted.keys()),
        "of another shape": [misshapen[name] for name in sorted(misshapen)],
    }
    said = [f"{len(names)} {how}: {_first(names)}" for how, names in wrong.items() if names]
    if said:
        raise ValueError(
            f"{path} does not hold the weights of its model ({'; '.join(said)}): train {path.parent} again, or set "
            "model.* in params.yaml back"
        )
    return found


def averaged(path: Path) -> str | None:
    """Return what a weights file says of the average it holds; None when it is none."""
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("averaged")


@cache
def shapes(settings: ModelSettings, is_video: bool) -> Mapping[str, torch.Size]:
    """Return the shapes of the weights of such a model by name, in the order in which it holds them."""
    with torch.device("meta"):
        return {
            name: weight.shape
            for name, weight in StivTransformer(settings, is_video, is_filled=False).state_dict().items()
        }


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
