"""Categories by a text encoder: the one whose description is the most similar, unless that says too little."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from stiv_model.settings import Device, TextSettings
from tasks.captions import token_lengths
from tasks.categories.found import Found
from tasks.categories.settings import OTHER, Category, NearestSettings

if TYPE_CHECKING:
    from stiv_model.encoders.text import TextEncoder

_DIGITS = 4
"""Of similarities: what another batch or another processor rounds differently is not told."""
_lent = threading.Lock()


def check_descriptions(listed: Sequence[Category], settings: NearestSettings) -> None:
    """Refuse descriptions that the encoder would cut, and an encoder that is not there.

    Raises:
        FileNotFoundError, ValueError: the description, its length and the limit; or as `token_lengths.tokens_of`.
    """
    tokens = settings.encoder.tokens
    lengths = token_lengths.tokens_of(settings.encoder)([category.description for category in listed])
    for category, length in zip(listed, lengths, strict=True):
        if length > tokens:
            raise ValueError(
                f"categories.listed: the description of {category.name} has {length} tokens, but "
                f"categories.by.encoder.tokens is {tokens}: shorten it, or raise tokens"
            )


def categorise(
    texts: Sequence[str], listed: Sequence[Category], settings: NearestSettings, device: Device
) -> list[Found]:
    """Return the category of each text.

    Args:
        texts: captions.
        listed: the categories.
        settings: which encoder, and how near is near enough.
        device: where the encoder computes.

    Raises:
        FileNotFoundError, ValueError: as `TextEncoder` and `devices.check`.
    """
    different = sorted(set(texts))
    with _encoder(settings.encoder, device) as encoder:
        known = _vectors(encoder, [category.description for category in listed])
        similar = _vectors(encoder, different) @ known.T
    names = [category.name for category in listed]
    found = {text: nearest(own, names, settings) for text, own in zip(different, similar, strict=True)}
    return [found[text] for text in texts]


def nearest(similarities: np.ndarray, names: Sequence[str], settings: NearestSettings) -> Found:
    """Return the category by the similarities of a text to all of them, (categories,); of equal ones the first."""
    rounded = np.round(similarities.astype(float), _DIGITS)
    first, *others = np.argsort(-rounded, kind="stable").tolist()
    similarity = float(rounded[first])
    margin = round(similarity - float(rounded[others[0]]), _DIGITS) if others else None
    is_clear = similarity >= settings.min_similarity and (margin is None or margin >= settings.min_margin)
    return Found(names[first] if is_clear else OTHER, names[first], similarity, margin)


def _vectors(encoder: "TextEncoder", texts: Sequence[str]) -> np.ndarray:
    """Return the pooled vectors of texts, of length 1: (texts, width), float32.

    Texts of like length are encoded together, padded no further than the longest of them.
    """
    import torch

    from stiv_model.encoders import devices
    from stiv_model.encoders.text import encode

    lengths = np.minimum(encoder.lengths(list(texts)), encoder.settings.tokens) if texts else np.zeros(0, int)
    order = np.argsort(lengths, kind="stable")
    found = np.empty((len(texts), encoder.width), np.float32)
    for first in range(0, len(order), encoder.settings.batch):
        some = order[first : first + encoder.settings.batch]
        batch, tokens = [texts[number] for number in some], int(lengths[some[-1]])
        with devices.repeatable(encoder.model.device, encoder.model.dtype):
            pooled = encode(encoder.model, encoder.tokenizer, batch, tokens, cut=True).pooled_BE
        found[some] = torch.nn.functional.normalize(pooled.float(), dim=-1).cpu().numpy()
    return found


@contextmanager
def _encoder(settings: TextSettings, device: Device) -> "Iterator[TextEncoder]":
    """Lend the encoder of this process, which is loaded once: on a GPU to one thread at a time."""
    import torch

    with _lent:
        found = _load(settings, device)
        if device != "cpu":
            yield found
            return
    if torch.get_num_threads() != 1:  # as this thread sees it: its sums are the same on every machine then
        torch.set_num_threads(1)
    yield found


@lru_cache(maxsize=1)
def _load(settings: TextSettings, device: Device) -> "TextEncoder":
    from stiv_model.encoders import devices
    from stiv_model.encoders.text import TextEncoder  # torch: seconds, which a stage that asks a model need not wait

    return TextEncoder(settings, devices.check(device, "devices.encoders"))
