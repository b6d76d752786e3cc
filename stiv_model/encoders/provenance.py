"""Which frozen encoders made a folder of latents: written by stage `latents`, read by whoever needs them again.

Without torch, so that a wrong request fails at once.
"""

import json
from pathlib import Path

from safetensors import safe_open

from stiv_model import settings_errors
from stiv_model.settings import NULL_TEXT, Encoders, TextSettings, VaeSettings

FILE = "encoders.json"


def write(folder: Path, vae: VaeSettings, text: TextSettings, made_by: dict[str, str]) -> None:
    """Write where the encoders come from and their hashes; not in what batches they worked, which decides nothing."""
    found = {
        "vae": vae.model_dump(exclude={"batch_frames"}) | {"sha256": made_by["vae_sha256"]},
        "text": text.model_dump(exclude={"batch"}) | {"sha256": made_by["text_sha256"]},
    }
    (folder / FILE).write_text(json.dumps(found, indent=2) + "\n")


def read(folder: Path, batch: int) -> tuple[VaeSettings, TextSettings]:
    """Return what loads the encoders that made a folder of latents, and nothing else.

    Args:
        folder: of latents.
        batch: frames that the VAE, and captions that the text encoder takes at once.

    Raises:
        FileNotFoundError: the folder does not say.
        ValueError: it says what its shards do not, or not all that loads the encoders.
    """
    path = folder / FILE
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: run stage latents again, or set training.validation_steps to 0"
        )
    found = json.loads(path.read_text())
    vae = settings_errors.checked(VaeSettings, found["vae"] | {"batch_frames": batch}, path)
    text = settings_errors.checked(TextSettings, found["text"] | {"batch": batch}, path)
    said = Encoders(vae_sha256=str(vae.sha256), text_sha256=str(text.sha256))
    if (made_by := hashes(folder)) != said:
        raise ValueError(f"{path} says {said}, but {NULL_TEXT} beside it {made_by}: run stage latents again")
    return vae, text


def hashes(folder: Path) -> Encoders:
    """Return the hashes of the encoders that made a folder of latents.

    Raises:
        FileNotFoundError: it has no features of the empty caption, which carry them.
    """
    path = folder / NULL_TEXT
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run stage latents first")
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    return Encoders(**{key: metadata[key] for key in Encoders.model_fields})
