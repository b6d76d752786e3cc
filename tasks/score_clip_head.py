"""Score aesthetic, learnt: how good a picture looks, 0 to 10, by a head on CLIP's feature of it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from stiv_model import frozen
from tasks import resume
from tasks.settings import ClipHeadSettings

_FILES = ("config.json", "model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
# Of OpenAI's CLIP, and of those trained after it: mean and standard deviation of red, green, blue
_MEAN, _DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ClipHead:
    """A head in the manner of LAION's aesthetic predictors: linear layers on CLIP's normalised image feature.

    Cost: with ViT-L/14 about 0.5 s a picture on one core, a few milliseconds on a GPU.

    Args:
        settings: the encoder and the head, a safetensors file of one linear layer, or of several that follow each
            other in the order of the numbers in their names (`layers.0.weight`, `layers.2.weight`, ...).

    Attributes:
        name: encoder and head as set, and the sha256 of their files.

    Raises:
        FileNotFoundError: there is no such encoder or no such head.
        ValueError: the encoder lacks weights, or the head is none or of another width.
    """

    def __init__(self, settings: ClipHeadSettings):
        folder = frozen.find("scores.aesthetic", settings.source, settings.revision, _FILES)
        self._device = torch.device(settings.device)
        self._encoder = _read_encoder(folder).to(self._device)  # type: ignore[arg-type]  # as transformers wraps it
        self._pixels: int = self._encoder.config.image_size
        head = Path(settings.head)
        self._layers = [
            (weight.to(self._device), bias.to(self._device))
            for weight, bias in read_head(head, self._encoder.config.projection_dim)
        ]
        weights = [resume.sha256_file(file) for file in (*sorted(folder.glob("*.safetensors")), head)]
        self.name = f"clip_head {settings.source} {settings.head} {' '.join(weights)}"

    @torch.inference_mode()
    def score(self, pictures: Sequence[np.ndarray]) -> float:
        """Return the mean of the head's answers for BGR pictures, kept within 0 to 10."""
        given = torch.cat([self._prepared(picture) for picture in pictures]).to(self._device)
        features = functional.normalize(self._encoder(pixel_values=given).image_embeds, dim=-1)
        for weight, bias in self._layers:
            features = functional.linear(features, weight, bias)
        return float(features.mean().clamp(0, 10))

    def _prepared(self, picture: np.ndarray) -> Tensor:
        """Return (1, 3, side, side) as CLIP was trained: the shorter side resized, the middle cut out."""
        pixels = torch.from_numpy(np.ascontiguousarray(picture[..., ::-1])).permute(2, 0, 1)[None].float() / 255
        height, width = (
            max(self._pixels, round(side * self._pixels / min(pixels.shape[2:]))) for side in pixels.shape[2:]
        )
        sized = functional.interpolate(pixels, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (height - self._pixels) // 2, (width - self._pixels) // 2
        cut = sized[..., top : top + self._pixels, left : left + self._pixels]
        return (cut - torch.tensor(_MEAN).view(1, 3, 1, 1)) / torch.tensor(_DEVIATION).view(1, 3, 1, 1)


def _read_encoder(folder: Path) -> transformers.PreTrainedModel:
    kind = transformers.CLIPVisionModelWithProjection
    loaded: Any = kind.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True)
    model, info = loaded
    frozen.check_names(folder, info["missing_keys"], ())
    return model.eval().requires_grad_(False)


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
