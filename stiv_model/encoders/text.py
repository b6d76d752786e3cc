"""The frozen text encoder: captions to token features and one pooled vector.

Shapes: B captions, L tokens, E width of the features.
"""

import hashlib
import threading
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from stiv_model.encoders import devices, pinned
from stiv_model.encoders.devices import Pending
from stiv_model.network.conditions import Text
from stiv_model.settings import TextSettings

KINDS: dict[str, type[transformers.PreTrainedModel]] = {
    "clip": transformers.CLIPTextModel,
    "t5": transformers.T5EncoderModel,
    "bert": transformers.BertModel,
}
_TOKENIZING = threading.Lock()
"""A tokenizer keeps how it pads and cuts from call to call: two threads would set it for each other."""
FILES = (*pinned.TRANSFORMERS_FILES, *pinned.TOKENIZER_FILES)
"""What a text encoder and its tokenizer are made of, as patterns."""


class TextEncoder:
    """A transformers text encoder whose weights never change.

    Args:
        settings: which one, in which precision, and how many tokens a caption is padded or cut to.
        device: where it computes.

    Attributes:
        sha256: hash of what decides the features but by rounding: kind, number of tokens, weights in float32 and
            vocabulary.

    Raises:
        FileNotFoundError: `text.source` names a package, folder or hub repository that is not there, or lacks a file.
        ValueError: the encoder takes fewer than `text.tokens` tokens, lacks weights, is not the one whose hash is
            stated, or is a hub name without a commit; or the folder is not what it says (`pinned.check_folder`).
    """

    def __init__(self, settings: TextSettings, device: str | torch.device = "cpu"):
        self.settings = settings
        folder = find(settings)
        with pinned.naming("text", settings.source):
            self.model = read(KINDS[settings.kind], folder, torch.float32)
            self.tokenizer = read_tokenizer(folder)
        limit = most_tokens(self.model)
        if limit is not None and settings.tokens > limit:
            raise ValueError(
                f"text.tokens is {settings.tokens}, but {settings.source} takes at most {limit}: set text.tokens to "
                f"{limit} or less"
            )
        self.width: int = self.model.config.hidden_size
        self.sha256 = sha256_of(settings.kind, settings.tokens, self.model, self.tokenizer)
        pinned.check_sha256("text", settings.source, settings.sha256, self.sha256)
        self.model.to(device, getattr(torch, settings.precision))  # type: ignore[arg-type]  # as transformers wraps it

    def encode(self, captions: list[str], cut: bool) -> Text:
        """Return the features of the captions, as the function `encode` does, in batches of `text.batch`.

        They are on the CPU, and those that are no mask in float32.

        Raises:
            ValueError: a caption is longer than `text.tokens` and `cut` is False.
        """
        batches = [captions[i : i + self.settings.batch] for i in range(0, len(captions), self.settings.batch)]
        with devices.repeatable(self.model.device, self.model.dtype):
            parts = [encode(self.model, self.tokenizer, batch, self.settings.tokens, cut) for batch in batches]
        text = Text(*(Pending(torch.cat(part)).result() for part in zip(*parts, strict=True)))
        return Text(text.tokens_BLE.float(), text.mask_BL, text.pooled_BE.float())

    def lengths(self, captions: list[str]) -> list[int]:
        """Return how many tokens each caption has: more than `text.tokens`, and it will be cut."""
        return lengths(self.tokenizer, captions)


def sha256_of(
    kind: str,
    tokens: int,
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
) -> str:
    """Return the `TextEncoder.sha256` of a text encoder in float32, on the CPU."""
    digest = hashlib.sha256(f"{kind} {tokens}".encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.contiguous().view(torch.uint8).numpy().data if weight.ndim else bytes(weight))
    digest.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    return digest.hexdigest()


@torch.inference_mode()
def encode(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
    captions: list[str],
    tokens: int,
    cut: bool,
    device: torch.device | None = None,
) -> Text:
    """Return the features of captions padded to `tokens`; the empty one is the null text (paper, appendix B).

    They are token features (B, L, E), their mask (B, L), False where padded, and a pooled vector (B, E).

    The pooled vector is the encoder's own: the feature of the last text token for CLIP (paper, section
    2.1), the mean over text tokens for the others, which have no token trained to stand for the sentence.

    Args:
        cut: whether longer captions are cut, as in training, or refused.
        device: where the model runs; None is where it is.

    Raises:
        ValueError: a caption is longer and `cut` is False.
    """
    if not cut:
        check_lengths(tokenizer, captions, tokens)
    with _TOKENIZING:
        given = tokenizer(captions, padding="max_length", truncation=True, max_length=tokens, return_tensors="pt")
    given = given.to(model.device if device is None else device)
    out = model(input_ids=given.input_ids, attention_mask=given.attention_mask)
    mask = given.attention_mask.bool()
    pooled = out.pooler_output if isinstance(model, transformers.CLIPTextModel) else _mean(out.last_hidden_state, mask)
    return Text(out.last_hidden_state, mask, pooled)


def check_lengths(tokenizer: transformers.PreTrainedTokenizerBase, captions: list[str], tokens: int) -> None:
    """Refuse captions that have more tokens than the features keep.

    Raises:
        ValueError: the first of them, with both numbers.
    """
    for caption, length in zip(captions, lengths(tokenizer, captions), strict=True):
        if length > tokens:
            raise ValueError(
                f'the prompt "{caption[:60]}" has {length} tokens, but the model has learnt from {tokens} '
                "(text.tokens): shorten it"
            )


def lengths(tokenizer: transformers.PreTrainedTokenizerBase, captions: list[str]) -> list[int]:
    """Return the number of tokens of each caption, those that the tokenizer adds included."""
    with _TOKENIZING:
        given = tokenizer(captions, truncation=False, verbose=False)
    return [len(ids) for ids in given["input_ids"]]


def most_tokens(model: transformers.PreTrainedModel) -> int | None:
    """Return how many tokens the encoder has positions for; None where they are relative, as in T5."""
    return getattr(model.config, "max_position_embeddings", None)


def read(kind: type[transformers.PreTrainedModel], folder: Path, dtype: torch.dtype) -> transformers.PreTrainedModel:
    """Return the text encoder of a folder, none of whose weights is missing there; those of other towers are left.

    Raises:
        FileNotFoundError, ValueError: weights are missing, or as `pinned.check_folder` and `pinned.opening`.
    """
    pinned.check_folder(folder, pinned.TRANSFORMERS_WEIGHTS)
    with pinned.opening(folder, f"a {kind.__name__}"):
        loaded: Any = kind.from_pretrained(folder, dtype=dtype, use_safetensors=True, output_loading_info=True)
    model, info = loaded
    pinned.check_names(folder, info["missing_keys"], ())
    return model.eval().requires_grad_(False)


def read_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerBase:
    """Return the tokenizer of a folder; code that lies there is not run.

    Raises:
        ValueError: as `pinned.opening`.
    """
    with pinned.opening(folder, "a tokenizer"):
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def find(settings: TextSettings) -> Path:
    """Return the folder of `text.source`.

    Raises:
        FileNotFoundError, ValueError: as `pinned.find`.
    """
    return pinned.find("text", settings.source, settings.revision, FILES)


def _mean(features_BLE: Tensor, mask_BL: Tensor) -> Tensor:
    weight = mask_BL[..., None].to(features_BLE.dtype)
    return (features_BLE * weight).sum(1) / weight.sum(1).clamp_min(1)
