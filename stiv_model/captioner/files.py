"""The files of the small captioner: what they say of it, and their hash, without torch."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt

from stiv_model import settings_errors
from stiv_model.encoders import pinned
from stiv_model.settings import Settings

EMBEDDED = Path(__file__).parents[1] / "embedded" / "captioner"
"""The folder that comes with the package."""
WEIGHTS = f"{pinned.TRANSFORMERS_WEIGHTS}.safetensors"

PAD, BEGIN, END = "<pad>", "<begin>", "<end>"
"""What is in the vocabulary beside words, at its beginning in this order."""


class CaptionerConfig(Settings):
    """All that the weights do not say: sizes, and the words in their order."""

    pixels: PositiveInt
    """Height and width of the stills as the network sees them."""
    frames: PositiveInt
    """Most frames of one sentence."""
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    """Of the convolutions, each of which halves the picture."""
    frame_tokens: PositiveInt
    """Tokens that a frame becomes."""
    features: Annotated[int, Field(gt=0, multiple_of=4)]
    """Of a token and of the GRU."""
    layers: PositiveInt
    """Of the transformer over the tokens of all frames."""
    max_words: PositiveInt
    """Words at which a sentence ends that has no end."""
    words: tuple[str, ...]
    """The vocabulary, `PAD`, `BEGIN` and `END` first."""
    kinds: dict[str, tuple[str, ...]]
    """Words of which a sentence has one at most, such as colours, by what they are called together."""


def index_of(special: str) -> int:
    """Return the place in the vocabulary of what is no word."""
    return (PAD, BEGIN, END).index(special)


def read_config(folder: Path) -> CaptionerConfig:
    """Return what a folder says of its captioner.

    Raises:
        FileNotFoundError: it has no config or no weights.
        ValueError: a file is not of its kind.
    """
    found = pinned.check_folder(folder, pinned.TRANSFORMERS_WEIGHTS)
    return settings_errors.checked(CaptionerConfig, found, folder / pinned.CONFIG)


def sha256_of(folder: Path) -> str:
    """Return the hash of all that decides what a captioner says: its config and its weights.

    Raises:
        OSError: they cannot be read.
    """
    return pinned.hash_files([folder / pinned.CONFIG, folder / WEIGHTS])
