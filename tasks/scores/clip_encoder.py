"""The CLIP image encoder: what the learnt aesthetic score and the embeddings of shots are made of."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from stiv_model.encoders import devices, pinned
from tasks.scores.settings import ImageEncoderSettings
from tasks.storage import atomic

# Of OpenAI's CLIP, and of those trained after it: mean and standard deviation of red, green, blue
_MEAN, _DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ClipEncoder:
    """The image side of CLIP, with its projection.

    Cost: with ViT-L/14 about 0.5 s a picture on one core, a few milliseconds on a GPU.

    Args:
        place: where the settings stand, for messages: `scores.embedding`.
        settings: the encoder.

    Attributes:
        name: encoder as set, and the sha256 of its weights.
        digest: 16 hexadecimal digits of a hash of its files, wherever they lie: features of two do not compare.
        width: numbers of a feature.
        device: where features are.

    Raises:
        FileNotFoundError: there is no such encoder, or a file of it is missing.
        ValueError: a hub name without its commit, an encoder that lacks weights, a folder that is not what it says, or
            no such device.
    """

    def __init__(self, place: str, settings: ImageEncoderSettings):
        self.device = devices.check(settings.device, f"{place}.device")
        folder = pinned.find(place, settings.source, settings.revision, pinned.TRANSFORMERS_FILES)
        with pinned.naming(place, settings.source):
            model = _read(folder)
        self._model = model.to(self.device)  # type: ignore[arg-type]  # as transformers wraps it
        self._pixels: int = self._model.config.image_size
        self.width: int = self._model.config.projection_dim
        weights = [atomic.sha256_file(file) for file in sorted(folder.glob("*.safetensors"))]
        self.name = " ".join([settings.source, *weights])
        made_of = [atomic.sha256_file(folder / pinned.CONFIG), *weights]
        self.digest = hashlib.sha256("".join(made_of).encode()).hexdigest()[:16]

    @torch.inference_mode()
    def features(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Return float32 (pictures, width) on the device, each of length 1, of BGR pictures (uint8, any sizes)."""
        pixels = torch.cat([self._prepared(picture) for picture in pictures]).to(self.device)
        return functional.normalize(self._model(pixel_values=pixels).image_embeds, dim=-1)

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


def _read(folder: Path) -> transformers.PreTrainedModel:
    kind = transformers.CLIPVisionModelWithProjection
    pinned.check_folder(folder, pinned.TRANSFORMERS_WEIGHTS)
    with pinned.opening(folder, f"a {kind.__name__}"):
        loaded: Any = kind.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True)
    model, info = loaded
    pinned.check_names(folder, info["missing_keys"], ())
    return model.eval().requires_grad_(False)
