"""The frozen VAE: frames to latents and back, each frame by itself (paper, appendix B).

Shapes: T frames, C channels (3 colours or the latent's), H height, W width, of pixels or of latents.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models import AutoencoderDC, AutoencoderKL, AutoencoderTiny
from torch import Tensor

from stiv_model.encoders import devices, pinned
from stiv_model.encoders.devices import Pending
from stiv_model.encoders.pixels import to_pixels
from stiv_model.encoders.vae_files import WEIGHTS, find, sha256_of
from stiv_model.settings import VaeSettings

Autoencoder = AutoencoderKL | AutoencoderTiny | AutoencoderDC
KINDS: dict[str, type[Autoencoder]] = {
    "AutoencoderKL": AutoencoderKL,
    "AutoencoderTiny": AutoencoderTiny,
    "AutoencoderDC": AutoencoderDC,
}


class Vae:
    """A diffusers autoencoder whose weights never change, with its latents brought to mean 0 and variance 1.

    What it is given may be on any device, and what it returns is on the CPU.

    Args:
        model: the autoencoder; it computes where it is, in the precision it has.
        batch_frames: how many frames are coded at once.
        sha256: of its files.

    Attributes:
        latent_channels: channels of one latent frame.
        downsampling: pixels per latent, on each side.
        sha256: hash of the config's and the weight files' bytes.
    """

    def __init__(self, model: Autoencoder, batch_frames: int, sha256: str):
        self.model = model.eval().requires_grad_(False)
        self.batch_frames = batch_frames
        self.sha256 = sha256
        self.latent_channels: int = model.config["latent_channels"]
        self.downsampling = downsampling(model)

    def encode(self, frames_TCHW: Tensor) -> Tensor:
        """Return latents (T, C, H / downsampling, W / downsampling), float32, of frames in [-1, 1], as `encode`.

        Raises:
            ValueError: height or width does not divide by `downsampling`.
        """
        return Pending(self._encode(devices.send(frames_TCHW, self.model.device)).float()).result()

    def submit(self, frames_THWC: np.ndarray) -> Pending:
        """Begin to encode uint8 frames (T, H, W, 3): latents as `encode` returns them, rounded to float16.

        A GPU is still at work when this returns; the CPU is not.

        Raises:
            ValueError: as `encode`.
        """
        frames = devices.send(torch.from_numpy(frames_THWC), self.model.device)
        return Pending(self._encode(to_pixels(frames)).half())

    def decode(self, latents_TCHW: Tensor) -> Tensor:
        """Return frames (T, 3, H * downsampling, W * downsampling) in [-1, 1], float32, of latents, as `decode`."""
        with devices.repeatable(self.model.device, self.model.dtype):
            latents = devices.send(latents_TCHW, self.model.device)
            return Pending(decode(self.model, latents, self.batch_frames).float()).result()

    def _encode(self, frames_TCHW: Tensor) -> Tensor:
        height, width = frames_TCHW.shape[-2:]
        if height % self.downsampling or width % self.downsampling:
            raise ValueError(
                f"frames are {height} x {width} pixels, but one latent of the VAE is {self.downsampling} on each "
                f"side: set latents.height and latents.width to multiples of {self.downsampling}"
            )
        with devices.repeatable(self.model.device, self.model.dtype):
            return encode(self.model, frames_TCHW, self.batch_frames)


def encode(model: Autoencoder, frames_TCHW: Tensor, batch_frames: int) -> Tensor:
    """Return normalised latents (T, C, H / downsampling, W / downsampling) of RGB frames in [-1, 1].

    They are the posterior's mean, where the autoencoder has a posterior, and on its device and in its precision.
    """
    shift, scale = normalisation(model)

    def encode_some(frames: Tensor) -> Tensor:
        encoded = model.encode(frames)
        if "latent_dist" in encoded:
            latents = encoded.latent_dist.mean
        else:  # AutoencoderTiny calls them latents, AutoencoderDC latent
            latents = encoded.latents if "latents" in encoded else encoded.latent
        return (latents - shift.to(latents)) * scale.to(latents)

    return _in_batches(encode_some, frames_TCHW.to(model.dtype), batch_frames)


def decode(model: Autoencoder, latents_TCHW: Tensor, batch_frames: int) -> Tensor:
    """Return RGB frames (T, 3, H * downsampling, W * downsampling) in [-1, 1] of normalised latents.

    They are on the device and in the precision of the autoencoder.
    """
    shift, scale = normalisation(model)

    def decode_some(latents: Tensor) -> Tensor:
        return model.decode(latents / scale.to(latents) + shift.to(latents)).sample.clamp(-1, 1)

    # a CPU convolves faster where the channels of a pixel lie side by side (docs/decisions.md: why not in `encode`)
    layout = torch.channels_last if latents_TCHW.device.type == "cpu" else torch.preserve_format
    return _in_batches(decode_some, latents_TCHW.to(model.dtype, memory_format=layout), batch_frames)


def downsampling(model: Autoencoder) -> int:
    """Return how many pixels, on each side, are one latent."""
    blocks = model.config.get("encoder_block_out_channels") or model.config["block_out_channels"]
    return 2 ** (len(blocks) - 1)


def normalisation(model: Autoencoder) -> tuple[Tensor, Tensor]:
    """Return shift and scale (C or 1, 1, 1): normalised latents are (latents - shift) * scale.

    An autoencoder states its shift and scaling factor, or a mean and a deviation per channel and a scaling factor.

    Raises:
        ValueError: it states a mean without a deviation, or the reverse.
    """
    config = model.config
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if (mean is None) != (deviation is None):
        raise ValueError(
            f"the VAE's config has latents_mean {mean} and latents_std {deviation}: it needs both or neither; mend its "
            "config.json"
        )
    shift = torch.tensor(mean or [config.get("shift_factor") or 0.0])
    scale = config["scaling_factor"] / torch.tensor(deviation or [1.0])
    return shift[:, None, None], scale[:, None, None]


@torch.no_grad()
def _in_batches(code: Callable[[Tensor], Tensor], x_TCHW: Tensor, batch_frames: int) -> Tensor:
    return torch.cat([code(some) for some in x_TCHW.split(batch_frames)])


def load(settings: VaeSettings, device: str | torch.device = "cpu") -> Vae:
    """Load the VAE on a device, in `vae.precision`.

    Raises:
        FileNotFoundError: `vae.source` is neither a folder nor a hub repository that can be reached, or has
            no config.json or safetensors weights.
        ValueError: it is not an autoencoder that we can use, not the one whose hash is stated, or a hub name without
            a commit.
    """
    sha256, folder = sha256_of(settings), find(settings)
    kind = _kind(settings, folder)
    with pinned.naming("vae", settings.source):
        model: Any = read(kind, folder, getattr(torch, settings.precision))
    return Vae(model.to(device), settings.batch_frames, sha256)


def _kind(settings: VaeSettings, folder: Path) -> type[Autoencoder]:
    with pinned.naming("vae", settings.source):
        name = pinned.check_folder(folder, WEIGHTS).get("_class_name")
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(
            f"vae.source is {settings.source}, whose {folder / pinned.CONFIG} is of the class {name}: takes an "
            f"{' or '.join(KINDS)}"
        )
    return KINDS[name]


def read(kind: type[Autoencoder], folder: Path, dtype: torch.dtype) -> Autoencoder:
    """Return the autoencoder of a folder, every one of whose weights was in it.

    Raises:
        FileNotFoundError, ValueError: weights are missing or unknown, or as `pinned.check_folder` and `pinned.opening`.
    """
    pinned.check_folder(folder, WEIGHTS)
    with pinned.opening(folder, f"an {kind.__name__}"):
        loaded: Any = kind.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # it needs accelerate, and warns where that is not installed
            output_loading_info=True,
        )
    model, info = loaded
    pinned.check_names(folder, info["missing_keys"], info["unexpected_keys"])
    return model
