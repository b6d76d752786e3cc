"""The model card of a pipeline folder, README.md, as far as it states what its weights are.

Its front matter has, under `stiv`, the key `sha256`: the hash of every file of weights, by its path in the folder; and
where `stiv export` wrote it, `checkpoint`: the hash of the weights that were exported.
"""

import hashlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from huggingface_hub import RepoCard
from huggingface_hub.repocard import metadata_load

FILE = "README.md"
SECTION, HASHES, CHECKPOINT = "stiv", "sha256", "checkpoint"
_DIGITS = re.compile("[0-9a-f]{64}")
_SAVED_AGAIN = """
> **The weights beside this card were saved again after it was written.** What it says of training and of figures is of
> the earlier ones; their hashes were taken out of it.
"""


def hashes(folder: Path, parts: Collection[str]) -> dict[str, str]:
    """Return the sha256 of every file of weights in the folders of `parts`, by its path in `folder`."""
    return {name: sha256(folder / name) for name in _weights(folder, parts)}


def stated(folder: Path) -> dict[str, str] | None:
    """Return the hashes that the card of a folder states; None where there is no card, or it states none.

    Raises:
        ValueError: its front matter is no YAML, or what stands there are no hashes.
    """
    path, section = folder / FILE, _section(folder)
    if section is None or (isinstance(section, dict) and HASHES not in section):
        return None
    found: Any = section[HASHES] if isinstance(section, dict) else None
    if not isinstance(found, dict) or not all(_DIGITS.fullmatch(str(value)) for value in found.values()):
        raise ValueError(f"{path}: {SECTION}.{HASHES} does not map files to hashes of 64 digits: {_remedy(folder)}")
    return {str(name): str(value) for name, value in found.items()}


def exported_from(folder: Path) -> str | None:
    """Return the sha256 of the weights that a folder was exported from; None where its card does not say.

    Raises:
        ValueError: its front matter is no YAML.
    """
    section = _section(folder)
    return str(section[CHECKPOINT]) if isinstance(section, dict) and CHECKPOINT in section else None


def _section(folder: Path) -> Any:
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return (metadata_load(path) or {}).get(SECTION)
    except Exception as error:  # whatever the reader of YAML raises
        raise ValueError(
            f"{path} does not begin with YAML that can be read ({' '.join(str(error).split())[:200]}): mend it, or "
            "delete it"
        ) from error


def check(folder: Path, read: Collection[str], parts: Collection[str]) -> None:
    """Refuse weights that are not those whose hashes the card states; without such a card nothing is compared.

    It reads every file once: milliseconds for 10 MB, seconds for an XL model.

    Args:
        read: names of the parts that are to be read; those of others may be missing.
        parts: names of all parts.

    Raises:
        FileNotFoundError: a file of the card is missing.
        ValueError: a file is another, or is not in the card.
    """
    listed = stated(folder)
    if listed is None:
        return
    skipped = set(parts) - set(read)
    listed = {name: value for name, value in listed.items() if name.partition("/")[0] not in skipped}
    there = _weights(folder, read)
    if missing := sorted(listed.keys() - set(there)):
        raise FileNotFoundError(f"{folder} has no {missing[0]}, whose hash its {FILE} states: {_remedy(folder)}")
    for name in there:
        if name not in listed:
            raise ValueError(f"{folder / name} is not in {FILE} ({SECTION}.{HASHES}): {_remedy(folder)}")
        found = sha256(folder / name)
        if found != listed[name]:
            raise ValueError(
                f"{folder / name} has sha256 {found[:12]}, but {FILE} says {listed[name][:12]}: {_remedy(folder)}"
            )


def keep_true(folder: Path, new: Path, parts: Collection[str]) -> None:
    """Write into `new` what becomes of the card of `folder`, whose weights those in `new` replace.

    Where they are others, it no longer states hashes, and says why; else nothing is written.

    Raises:
        ValueError: as `stated`.
    """
    listed = stated(folder)
    if listed is None or listed == hashes(new, parts):
        return
    card = RepoCard.load(folder / FILE)
    section = {key: value for key, value in card.data[SECTION].items() if key not in (HASHES, CHECKPOINT)}
    card.data[SECTION] = section or None  # None is not written
    card.text = _SAVED_AGAIN + card.text
    card.save(new / FILE)


def _weights(folder: Path, parts: Collection[str]) -> list[str]:
    return [f"{part}/{path.name}" for part in sorted(parts) for path in sorted((folder / part).glob("*.safetensors"))]


def sha256(path: Path) -> str:
    """Return the hash of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remedy(folder: Path) -> str:
    return (
        f"`git checkout -- {folder}` brings back what was committed, and force_download=True what came from a hub; or "
        "export the checkpoint again"
    )
