"""Prompts: files of their own, so that they are versions, with a hash that every row carries."""

import hashlib
import unicodedata
from pathlib import Path
from typing import NamedTuple

_FRAMES = "{frames}"


class Prompt(NamedTuple):
    """What a model is asked."""

    text: str
    sha256: str
    """Of the file."""

    def about(self, frames: int) -> str:
        """Return the text for so many frames. Other braces stay as they are."""
        return self.text.replace(_FRAMES, str(frames))


def read_prompt(path: Path) -> Prompt:
    """Return the prompt in a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, no UTF-8, has signs that nobody sees, or does not say `{frames}`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: captions.captioners names it as a prompt")
    content = path.read_bytes()
    try:
        text = content.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): save the prompt so") from None
    if not text:
        raise ValueError(f"{path} is empty: write what the model shall be asked")
    hidden = {
        letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Co") and letter not in "\n\t\r"
    }
    if hidden:
        raise ValueError(f"{path} has {min(hidden)!a}, which nobody sees who reads the prompt: take it out")
    if _FRAMES not in text:
        raise ValueError(f"{path} does not say {_FRAMES}, which becomes the number of frames: tell the model")
    return Prompt(text, hashlib.sha256(content).hexdigest())
