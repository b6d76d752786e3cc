"""The text side of a CLIP model, with its projection: beside `tasks/scores/clip_encoder.py`, its image side."""

from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional

from stiv_model.encoders import devices, pinned
from tasks.scores.settings import ImageEncoderSettings


class ClipText:
    """The text encoder.

    Args:
        place: where the settings stand, for messages: `evaluation.clip`.
        settings: the model.

    Raises:
        FileNotFoundError: there is no such model, or a file of it is missing.
        ValueError: a hub name without its commit, a model that lacks weights, a folder that is not what it says, or no
            such device.
    """

    def __init__(self, place: str, settings: ImageEncoderSettings):
        self.device = devices.check(settings.device, f"{place}.device")
        files = (*pinned.TRANSFORMERS_FILES, *pinned.TOKENIZER_FILES)
        folder = pinned.find(place, settings.source, settings.revision, files)
        kind = transformers.CLIPTextModelWithProjection
        with pinned.naming(place, settings.source):
            pinned.check_folder(folder, pinned.TRANSFORMERS_WEIGHTS)
            with pinned.opening(folder, f"a {kind.__name__}"):
                loaded: Any = kind.from_pretrained(
                    folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
                )
                self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model, info = loaded
            pinned.check_names(folder, info["missing_keys"], ())
        self._model = model.eval().requires_grad_(False).to(self.device)
        self._tokens: int = self._model.config.max_position_embeddings

    @torch.inference_mode()
    def features(self, text: str) -> np.ndarray:
        """Return the feature of a text, float32 (D,), of length 1; what is beyond the model's tokens (77) is cut."""
        found = self._tokenizer([text], truncation=True, max_length=self._tokens, return_tensors="pt").to(self.device)
        embeds = self._model(input_ids=found["input_ids"], attention_mask=found["attention_mask"]).text_embeds
        return functional.normalize(embeds, dim=-1)[0].cpu().numpy()
