"""The frozen text encoder: captions to token features and one pooled vector.

Shapes: B captions, L tokens, E width of the features.
"""

import hashlib
import importlib.util
from pathlib import Path

import torch
import transformers
from torch import Tensor

from stiv_model.conditions import Text
from stiv_model.settings import TextSettings

_MODELS = {"clip": "CLIPTextModel", "t5": "T5EncoderModel", "bert": "BertModel"}


class TextEncoder:
    """A transformers text encoder whose weights never change.

    Args:
        settings: which one, and how many tokens a caption is padded or cut to.

    Raises:
        FileNotFoundError: `text.source` names a package or folder that is not there.
        OSError: a hub name that cannot be loaded, as transformers says.
    """

    def __init__(self, settings: TextSettings):
        self.settings = settings
        source = resolve(settings.source)
        pinned = {"revision": settings.revision} if settings.revision else {}
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(source, **pinned)
        model = getattr(transformers, _MODELS[settings.kind])
        self.model = model.from_pretrained(source, use_safetensors=True, **pinned).eval().requires_grad_(False)
        self.width: int = self.model.config.hidden_size
        self.sha256 = self._sha256()

    @torch.inference_mode()
    def encode(self, captions: list[str]) -> Text:
        """Return the features of the captions; the empty one is the null text (paper, appendix B).

        The pooled vector is the encoder's own: the feature of the last text token for CLIP (paper, section
        2.1), the mean over text tokens for the others, which have no token trained to stand for the sentence.
        """
        parts = [
            self._encode(captions[i : i + self.settings.batch]) for i in range(0, len(captions), self.settings.batch)
        ]
        return Text(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _encode(self, captions: list[str]) -> Text:
        given = self.tokenizer(
            captions,
            padding="max_length",
            truncation=True,
            max_length=self.settings.tokens,
            return_tensors="pt",
        )
        out = self.model(input_ids=given.input_ids, attention_mask=given.attention_mask)
        mask = given.attention_mask.bool()
        pooled = out.pooler_output if self.settings.kind == "clip" else _mean(out.last_hidden_state, mask)
        return Text(out.last_hidden_state, mask, pooled)

    def _sha256(self) -> str:
        """Hash what decides the features: weights, vocabulary and number of tokens."""
        digest = hashlib.sha256(f"{self.settings.kind} {self.settings.tokens}".encode())
        for name, weight in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.contiguous().view(torch.uint8).numpy().data if weight.ndim else bytes(weight))
        digest.update(repr(sorted(self.tokenizer.get_vocab().items())).encode())
        return digest.hexdigest()


def resolve(source: str) -> str:
    """Return the folder of `package:NAME/FOLDER`, or `source` itself.

    Raises:
        FileNotFoundError: no such package, or no such folder in it.
    """
    if not source.startswith("package:"):
        return source
    package, _, folder = source.removeprefix("package:").partition("/")
    found = importlib.util.find_spec(package)
    places = [Path(place) / folder for place in (found.submodule_search_locations or [])] if found else []
    for place in places:
        if place.is_dir():
            return str(place)
    raise FileNotFoundError(
        f"text.source is {source}, but there is no package {package} with a folder {folder}: install it, or name "
        "a transformers folder in params.yaml"
    )


def _mean(features_BLE: Tensor, mask_BL: Tensor) -> Tensor:
    weight = mask_BL[..., None].to(features_BLE.dtype)
    return (features_BLE * weight).sum(1) / weight.sum(1).clamp_min(1)
