"""The frozen VAE: frames to latents and back, each frame by itself (paper, appendix B).

Shapes: T frames, C channels (3 colours or the latent's), H height, W width.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.models import AutoencoderKL, AutoencoderTiny
from huggingface_hub import snapshot_download
from torch import Tensor

from stiv_model.settings import VaeSettings

_FILES = (
    "config.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model-*.safetensors",
)
"""What decides the latents; other precisions and formats that a hub repository may hold are not read."""
_KINDS = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
_REPOSITORY = Path(__file__).parent.parent


class Vae:
    """A diffusers autoencoder whose weights never change, with its latents brought to mean 0 and variance 1.

    Attributes:
        latent_channels: channels of one latent frame.
        downsampling: pixels per latent, on each side.
        sha256: hash of the config's and the weight files' bytes.
    """

    def __init__(self, model: AutoencoderKL | AutoencoderTiny, batch_frames: int, sha256: str):
        if model.config.get("latents_mean") is not None:
            raise ValueError(
                "vae.source: its config normalises with latents_mean, which is not supported: name an "
                "autoencoder that has scaling_factor and shift_factor alone"
            )
        self.model = model.eval().requires_grad_(False)
        self.batch_frames = batch_frames
        self.sha256 = sha256
        self.latent_channels: int = model.config["latent_channels"]
        self.downsampling: int = 2 ** (len(model.config["block_out_channels"]) - 1)
        self.scale: float = model.config["scaling_factor"]
        self.shift: float = model.config.get("shift_factor") or 0.0

    def encode(self, frames_TCHW: Tensor) -> Tensor:
        """Return latents (T, C, H / downsampling, W / downsampling) of frames in [-1, 1]: the posterior mean.

        Raises:
            ValueError: height or width does not divide by `downsampling`.
        """
        height, width = frames_TCHW.shape[-2:]
        if height % self.downsampling or width % self.downsampling:
            raise ValueError(
                f"frames are {height} x {width} pixels, but one latent of the VAE is {self.downsampling} on each "
                f"side: set latents.height and latents.width to multiples of {self.downsampling}"
            )
        return self._in_batches(self._encode, frames_TCHW)

    def decode(self, latents_TCHW: Tensor) -> Tensor:
        """Return frames in [-1, 1]."""
        return self._in_batches(self._decode, latents_TCHW)

    def _encode(self, frames_TCHW: Tensor) -> Tensor:
        encoded = self.model.encode(frames_TCHW)
        # AutoencoderTiny has no posterior, only latents
        latents_TCHW = encoded.latent_dist.mean if "latent_dist" in encoded else encoded.latents
        return (latents_TCHW - self.shift) * self.scale

    def _decode(self, latents_TCHW: Tensor) -> Tensor:
        return self.model.decode(latents_TCHW / self.scale + self.shift).sample.clamp(-1, 1)

    @torch.no_grad()
    def _in_batches(self, code: Callable[[Tensor], Tensor], x_TCHW: Tensor) -> Tensor:
        x_TCHW = x_TCHW.to(self.model.device, self.model.dtype)
        return torch.cat([code(some) for some in x_TCHW.split(self.batch_frames)])


def load(settings: VaeSettings, device: str | torch.device = "cpu") -> Vae:
    """Load the VAE in float32.

    Raises:
        FileNotFoundError: `vae.source` is neither a folder nor a hub repository that can be reached, or has
            no config.json or safetensors weights.
        ValueError: it is not an autoencoder that we can use.
    """
    folder = find(settings)
    files = sorted(path for pattern in _FILES for path in folder.glob(pattern))
    if not (folder / "config.json").exists() or not any(path.suffix == ".safetensors" for path in files):
        raise FileNotFoundError(
            f"vae.source is {settings.source}, but {folder} has no config.json or no "
            "diffusion_pytorch_model.safetensors: save it with diffusers' save_pretrained"
        )
    name = json.loads((folder / "config.json").read_text()).get("_class_name")
    if name not in _KINDS:
        raise ValueError(f"vae.source is {settings.source}, a {name}: takes an {' or '.join(_KINDS)}")
    # low_cpu_mem_usage needs accelerate, and warns where it is not installed
    model = _KINDS[name].from_pretrained(
        folder, torch_dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False
    )
    return Vae(model.to(device), settings.batch_frames, _sha256(files))


def find(settings: VaeSettings) -> Path:
    """Return the folder of `vae.source`: as given, else in the repository of this package, else from the hub.

    Raises:
        FileNotFoundError: none of the three.
    """
    for folder in (Path(settings.source), _REPOSITORY / settings.source):
        if folder.is_dir():
            return folder
    try:
        return Path(snapshot_download(settings.source, revision=settings.revision, allow_patterns=list(_FILES)))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"vae.source is {settings.source}: no such folder here or in {_REPOSITORY}, and as a hub name it "
            f"cannot be loaded ({type(error).__name__}): name a folder that diffusers wrote, in params.yaml"
        ) from error


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
