"""Prompts: files of their own, so that they are versions, with a hash that every row carries."""

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_FRAMES = {"frames": "the number of frames"}


class Prompt(NamedTuple):
    """What a model is asked."""

    text: str
    sha256: str
    """Of the file."""

    def about(self, frames: int) -> str:
        """Return the text for so many frames. Other braces stay as they are."""
        return self.filled({"frames": frames})

    def filled(self, values: Mapping[str, object]) -> str:
        """Return the text with each value in place of its name in braces. Braces within a value stay as they are."""
        names = "|".join(map(re.escape, values))
        return re.sub(rf"\{{({names})\}}", lambda found: str(values[found[1]]), self.text)


def read_prompt(path: Path, places: Mapping[str, str] = _FRAMES, key: str = "captions.captioners") -> Prompt:
    """Return the prompt in a file.

    Args:
        places: names that it must have in braces, and what each becomes.
        key: of params.yaml, that names the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, no UTF-8, has signs that nobody sees, or lacks one of the places, such as `{frames}`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {key} names it as a prompt")
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
    for place, meaning in places.items():
        if f"{{{place}}}" not in text:
            raise ValueError(f"{path} does not say {{{place}}}, which becomes {meaning}: tell the model")
    return Prompt(text, hashlib.sha256(content).hexdigest())
