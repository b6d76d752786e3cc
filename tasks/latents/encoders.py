"""The frozen networks of stage latents: one of each in a process, and what they make of frames and captions."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from stiv_model.encoders import devices
from stiv_model.encoders.text import TextEncoder
from stiv_model.encoders.vae_files import sha256_of, sizes_of
from stiv_model.latents.folder import clip_bytes
from stiv_model.latents.shard_files import text_sha256
from stiv_model.settings import Device, TextSettings, VaeSettings
from tasks.latents.settings import LatentSettings

if TYPE_CHECKING:
    from stiv_model.encoders.vae import Vae

Tensors = dict[str, torch.Tensor]
"""What is kept of one clip: its latents and its text features; or of several, one entry for each."""


class Encoding(NamedTuple):
    """Which encoders make the latents."""

    vae: VaeSettings
    text: TextSettings
    device: Device
    """Which decides nothing but by rounding."""


class Encoders(NamedTuple):
    """The frozen networks."""

    vae: "Vae"
    text: TextEncoder

    @property
    def made_by(self) -> dict[str, str]:
        return {"vae_sha256": self.vae.sha256, "text_sha256": self.text.sha256}


_lent = threading.Lock()


@contextmanager
def encoders(encoding: Encoding) -> Iterator[Encoders]:
    """Lend the encoders of this process, which are loaded once.

    On the CPU any number of threads compute at a time, each by one thread of torch: as many shards as are worked on
    keep as many cores busy, and the last bits of torch's sums, which depend on its threads, are the same on every
    machine. A GPU is lent to one thread at a time.

    Raises:
        FileNotFoundError, ValueError, OSError: as `TextEncoder` and `vae.load` say, and `devices.check`.
    """
    with _lent:
        found = Encoders(_vae(encoding.vae, encoding.device), _text(encoding.text, encoding.device))
        if encoding.device != "cpu":
            yield found
            return
    _use_one_thread()
    yield found


def _use_one_thread() -> None:
    if torch.get_num_threads() != 1:  # as this thread sees it
        torch.set_num_threads(1)


@lru_cache(maxsize=1)
def _vae(vae: VaeSettings, device: Device) -> "Vae":
    from stiv_model.encoders.vae import load  # diffusers takes 170 MB, and a process that encodes nothing needs none

    return load(vae, devices.check(device, "devices.encoders"))


@lru_cache(maxsize=1)
def _text(text: TextSettings, device: Device) -> TextEncoder:
    return TextEncoder(text, devices.check(device, "devices.encoders"))


class Facts(NamedTuple):
    """What a stage's own process takes of the encoders."""

    made_by: dict[str, str]
    """Their hashes, as they stand in every file of latents."""
    text_width: int
    null: Tensors
    """Text features (1, ...) of the empty caption, made on the CPU wherever the shards are encoded."""


@lru_cache(maxsize=1)
def facts(vae: VaeSettings, text: TextSettings) -> Facts:
    """Load the text encoder, note what is needed of it, and let it go: whoever encodes loads its own.

    Raises:
        FileNotFoundError, ValueError, OSError: as `TextEncoder` and `vae_files.sha256_of` say.
    """
    _use_one_thread()
    encoder = TextEncoder(text)
    hashes = {"vae_sha256": sha256_of(vae), "text_sha256": encoder.sha256}
    return Facts(hashes, encoder.width, text_tensors(encoder, [""]))


def entry_bytes(encoding: Encoding, settings: LatentSettings) -> int:
    """Return how many bytes one clip takes in its part.

    Raises:
        FileNotFoundError, ValueError, OSError: as `facts` and `vae_files.sizes_of` say.
    """
    channels, downsampling = sizes_of(encoding.vae)
    rows, columns = (-(-side // downsampling) for side in (settings.height, settings.width))
    width = facts(encoding.vae, encoding.text).text_width
    return clip_bytes(settings.frames * channels * rows * columns, encoding.text.tokens, width)


def text_tensors(encoder: TextEncoder, captions: list[str]) -> Tensors:
    """Return the text features of captions as they are kept: tokens (B, L, E), mask (B, L), pooled (B, E)."""
    text = encoder.encode(captions, cut=True)
    return {
        "tokens": text.tokens_BLE.half().contiguous(),
        "mask": text.mask_BL.contiguous(),
        "pooled": text.pooled_BE.half().contiguous(),
    }


def text_hash(tensors: Tensors) -> str:
    """Return the `text_sha256` of one clip's text features."""
    return text_sha256({name: tensor.numpy().data for name, tensor in tensors.items()})
