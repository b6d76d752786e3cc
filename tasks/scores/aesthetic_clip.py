"""Score aesthetic, learnt: how good a picture looks, 0 to 10, by a head on CLIP's feature of it."""

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from tasks.scores.clip_encoder import ClipEncoder
from tasks.scores.settings import ClipHeadSettings
from tasks.storage import atomic


class ClipHead:
    """A head in the manner of LAION's aesthetic predictors: linear layers on CLIP's normalised image feature.

    Args:
        settings: the head, a safetensors file of one linear layer, or of several that follow each other in the order
            of the numbers in their names (`layers.0.weight`, `layers.2.weight`, ...).
        encoder: of these settings.

    Attributes:
        encoder: of the features that it takes.
        name: encoder and head as set, and the sha256 of their files.

    Raises:
        FileNotFoundError: there is no such head.
        ValueError: the file is no head, or one of another width.
    """

    def __init__(self, settings: ClipHeadSettings, encoder: ClipEncoder):
        self.encoder = encoder
        path = Path(settings.head)
        self._layers = [
            (weight.to(encoder.device), bias.to(encoder.device)) for weight, bias in read_head(path, encoder.width)
        ]
        self.name = f"clip_head {encoder.name} {settings.head} {atomic.sha256_file(path)}"

    @torch.inference_mode()
    def score(self, features: Tensor) -> float:
        """Return the mean of the head's answers for the encoder's features, kept within 0 to 10."""
        for weight, bias in self._layers:
            features = functional.linear(features, weight, bias)
        return float(features.mean().clamp(0, 10))


def read_head(path: Path, width: int) -> list[tuple[Tensor, Tensor]]:
    """Return weight (out, in) and bias (out) of each layer of a head that takes `width` features and gives one number.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not such a head.
    """
    place = f"scores.aesthetic.head is {path}"
    if not path.is_file():
        raise FileNotFoundError(
            f"{place}: no such file; name a safetensors file, or set scores.aesthetic.kind: estimator"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{place}, which is no safetensors file ({error}): convert the head's weights to one"
        ) from error
    stems = sorted((name.removesuffix("weight") for name in tensors if name.endswith("weight")), key=_number)
    if tensors.keys() != {stem + part for stem in stems for part in ("weight", "bias")} or not stems:
        raise ValueError(f"{place}, with {sorted(tensors)}: expected weight and bias of linear layers")
    layers = [(tensors[f"{stem}weight"].float(), tensors[f"{stem}bias"].float()) for stem in stems]
    sizes = [width, *(bias.numel() for _, bias in layers)]
    if [tuple(weight.shape) for weight, _ in layers] != [*zip(sizes[1:], sizes, strict=False)] or sizes[-1] != 1:
        shapes = [tuple(weight.shape) for weight, _ in layers]
        raise ValueError(
            f"{place}, with layers {shapes}: expected linear layers from the encoder's {width} features to 1"
        )
    return layers


def _number(stem: str) -> int:
    found = re.findall(r"\d+", stem)
    return int(found[-1]) if found else 0
