"""Where a frozen encoder comes from, and that it is the one that was meant."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from huggingface_hub import snapshot_download

from stiv_model import package_files

_REPOSITORY = Path(__file__).parents[2]
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile("[0-9a-f]{40}")

CONFIG = "config.json"
"""In the folder of a model of transformers or diffusers: what it is."""
TRANSFORMERS_FILES = (CONFIG, "model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
"""What a model of transformers is made of, as patterns; other formats that a repository may hold are not read."""


def find(section: str, source: str, revision: str | None, files: Sequence[str]) -> Path:
    """Return the folder of `source`: as given, in the repository of this package, in a package, or from the hub.

    Args:
        section: of the settings, for messages.
        source: a folder, `package:NAME/FOLDER`, or a hub name.
        revision: the commit of a hub repository.
        files: patterns of what is fetched from the hub; nothing there is ever run.

    Raises:
        FileNotFoundError: it is none of the four, or the hub cannot be reached.
        ValueError: a hub name without the commit that is meant.
    """
    if source.startswith(package_files.PREFIX):
        remedy = "install it, or name another source in params.yaml"
        return package_files.find(f"{section}.source", source, Path.is_dir, remedy)
    for folder in (Path(source), _REPOSITORY / source):
        if folder.is_dir():
            return folder
    nowhere = f"{section}.source is {source}: no such folder here or in {_REPOSITORY}"
    if not _HUB_NAME.fullmatch(source):
        raise FileNotFoundError(f"{nowhere}: name one that save_pretrained wrote, in params.yaml")
    if revision is None or not _COMMIT.fullmatch(revision):
        raise ValueError(
            f"{nowhere}; as a hub name it needs the 40 digits of a commit, since a branch moves, but "
            f"{section}.revision is {revision or 'null'}: copy them from https://huggingface.co/{source}/commits/main"
        )
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(files)))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{nowhere}, and as a hub name, at commit {revision}, it cannot be loaded ({type(error).__name__}): fetch "
            "it where the hub can be reached, or name a folder in params.yaml"
        ) from error


def check_names(place: object, missing: Iterable[str], extra: Iterable[str]) -> None:
    """Refuse weights some of whose names are missing, which would stay random, or not the model's.

    Raises:
        ValueError: with the first names of both kinds.
    """
    kinds = {"missing": sorted(missing), "unknown": sorted(extra)}
    wrong = [f"{len(names)} {kind}, {names[0]} first" for kind, names in kinds.items() if names]
    if wrong:
        raise ValueError(
            f"{place} does not hold the weights of this model ({'; '.join(wrong)}): name the folder they were saved to"
        )


def check_sha256(section: str, source: str, expected: str | None, found: str) -> None:
    """Refuse an encoder whose hash is not the one stated.

    Raises:
        ValueError: with both hashes.
    """
    if expected not in (None, found):
        raise ValueError(
            f"{section}.sha256 is {expected}, but {source} has {found}: name the right {section}.source, or state its "
            "hash in params.yaml"
        )


def hash_files(files: Iterable[Path]) -> str:
    """Return the sha256 of the names and bytes of some files, in this order."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
