"""The files of the frozen VAE: which they are, and what they say of it, without loading it or diffusers."""

from pathlib import Path

from stiv_model.encoders import pinned
from stiv_model.settings import VaeSettings

WEIGHTS = "diffusion_pytorch_model"
"""How diffusers calls the files of weights of each of its models, without the ending."""
_FILES = (
    pinned.CONFIG,
    f"{WEIGHTS}.safetensors",
    f"{WEIGHTS}.safetensors.index.json",
    f"{WEIGHTS}-*.safetensors",
)
"""What decides the latents; other precisions and formats that a hub repository may hold are not read."""
_BLOCKS = ("encoder_block_out_channels", "block_out_channels")
"""Lists in a config with one entry for each size of the picture, of which each is half of the one before."""


def find(settings: VaeSettings) -> Path:
    """Return the folder of `vae.source`.

    Raises:
        FileNotFoundError, ValueError: as `pinned.find`.
    """
    return pinned.find("vae", settings.source, settings.revision, _FILES)


def sha256_of(settings: VaeSettings) -> str:
    """Return the `Vae.sha256` of a VAE that is not loaded: of its files, whatever it computes on and in.

    Raises:
        FileNotFoundError, ValueError: as `vae.load`, of its files.
    """
    folder = find(settings)
    with pinned.naming("vae", settings.source):
        pinned.check_folder(folder, WEIGHTS)
    sha256 = pinned.hash_files(sorted(path for pattern in _FILES for path in folder.glob(pattern)))
    pinned.check_sha256("vae", settings.source, settings.sha256, sha256)
    return sha256


def sizes_of(settings: VaeSettings) -> tuple[int, int]:
    """Return `Vae.latent_channels` and `Vae.downsampling` of a VAE that is not loaded.

    Raises:
        FileNotFoundError, ValueError: as `vae.load`, of its config; or that does not say them.
    """
    folder = find(settings)
    with pinned.naming("vae", settings.source):
        config = pinned.check_folder(folder, WEIGHTS)
    channels, blocks = config.get("latent_channels"), next((config[name] for name in _BLOCKS if config.get(name)), None)
    if not isinstance(channels, int) or not isinstance(blocks, list):
        raise ValueError(
            f"{folder / pinned.CONFIG} does not say latent_channels or block_out_channels: save the VAE again "
            "(save_pretrained), which writes all keys"
        )
    return channels, 2 ** (len(blocks) - 1)
