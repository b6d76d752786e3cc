"""Where a frozen encoder comes from, and that it is the one that was meant."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from stiv_model import package_files

_REPOSITORY = Path(__file__).parents[2]
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile("[0-9a-f]{40}")

CONFIG = "config.json"
"""In the folder of a model of transformers or diffusers: what it is."""
TRANSFORMERS_WEIGHTS = "model"
TRANSFORMERS_FILES = (CONFIG, "model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
"""What a model of transformers is made of, as patterns; other formats that a repository may hold are not read."""

TOKENIZER = "tokenizer.json"
"""In the folder of a text encoder: all of its tokenizer, as the package tokenizers reads it."""
TOKENIZER_FILES = (
    *(TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "spiece.model"),
)
"""What a tokenizer of transformers is made of, in whatever form."""
INDEX = ".index.json"
"""How the name of a list ends that says which of several files has which weight."""
_OWN_ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")
"""Of PyTorch or an installed package; any other name is a kernel of a hub, which transformers would fetch and run."""
_SAVE_AGAIN = "save the model again with save_pretrained, or name another folder"
_SHOWN = 300  # characters of what a library says


def find(section: str, source: str, revision: str | None, files: Sequence[str], place: object = "params.yaml") -> Path:
    """Return the folder of `source`: as given, in the repository of this package, in a package, or from the hub.

    Args:
        section: of the settings, for messages.
        source: a folder, `package:NAME/FOLDER`, or a hub name.
        revision: the commit of a hub repository.
        files: patterns of what is fetched from the hub; nothing there is ever run.
        place: where the section stands, for messages.

    Raises:
        FileNotFoundError: it is none of the four, or the hub cannot be reached.
        ValueError: a hub name without the commit that is meant.
    """
    if source.startswith(package_files.PREFIX):
        remedy = f"install it, or name another source in {place}"
        return package_files.find(f"{section}.source", source, Path.is_dir, remedy)
    for folder in (Path(source), _REPOSITORY / source):
        if folder.is_dir():
            return folder
    nowhere = f"{section}.source is {source}: no such folder here or in {_REPOSITORY}"
    if not HUB_NAME.fullmatch(source):
        raise FileNotFoundError(f"{nowhere}: name one that save_pretrained wrote, in {place}")
    if revision is None or not COMMIT.fullmatch(revision):
        raise ValueError(
            f"{nowhere}; as a hub name it needs the 40 digits of a commit, since a branch moves, but "
            f"{section}.revision is {revision or 'null'}: copy them from https://huggingface.co/{source}/commits/main"
        )
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(files)))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{nowhere}, and as a hub name, at commit {revision}, it cannot be loaded ({type(error).__name__}): fetch "
            f"it where the hub can be reached, or name a folder in {place}"
        ) from error


@contextlib.contextmanager
def naming(section: str, source: str) -> Iterator[None]:
    """Put before what is refused of a folder which setting named it.

    Raises:
        FileNotFoundError, ValueError: as the block, of what is in the folder.
    """
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{section}.source is {source}, but {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the values of a file of a model's folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no JSON, or holds no keys.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}: {_SAVE_AGAIN}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}): {_SAVE_AGAIN}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is one {type(values).__name__}, without keys: {_SAVE_AGAIN}")
    return values


def check_folder(folder: Path, weights: str) -> dict[str, Any]:
    """Refuse a folder of a model that is not what it says, before a library opens it; return its config.

    Args:
        weights: what its files of weights are called, without the ending.

    Raises:
        FileNotFoundError: it has no config or no weights as safetensors, or a file that its index names is missing.
        ValueError: a file is not of its kind, such as a pickle; or the config names a kernel that a hub would send.
    """
    config = read_json(folder / CONFIG)
    _check_attention(folder / CONFIG, config)
    for path in _weight_files(folder, weights):
        try:
            with safe_open(path, "pt"):  # reads the header, and compares with the length of the file
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is no whole safetensors file ({error}): {_SAVE_AGAIN}") from error
    return config


def _check_attention(path: Path, values: dict[str, Any], name: str = "") -> None:
    """Refuse a kernel that transformers would fetch from a hub and run, wherever in a config it is named."""
    for key, value in values.items():
        here = f"{name}.{key}" if name else key
        plain = key.strip("_").removesuffix("_internal")
        if plain == "attn_implementation":
            is_foreign = any(one not in _OWN_ATTENTION for one in _each(value) if one is not None)
        elif plain == "experts_implementation":
            is_foreign = any("/" in str(one) for one in _each(value))
        else:
            is_foreign = plain in ("use_kernels", "kernel_config") and bool(value)
            if isinstance(value, dict) and not is_foreign:
                _check_attention(path, value, here)
        if is_foreign:
            raise ValueError(
                f"{path}: {here} is {value!r}, code that a hub would send, and only {', '.join(_OWN_ATTENTION)} are "
                "used: take the key out"
            )


def _each(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else [value]


def _weight_files(folder: Path, weights: str) -> list[Path]:
    single, index = folder / f"{weights}.safetensors", folder / f"{weights}.safetensors{INDEX}"
    if single.exists():
        return [single]
    if not index.exists():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        pickles = f", only {others[0]}, a pickle, which is not opened" if others else ""
        raise FileNotFoundError(f"{folder} has no {single.name}{pickles}: {_SAVE_AGAIN}")
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise ValueError(f"{index} has no weight_map from names to files: {_SAVE_AGAIN}")
    names = sorted(set(listed.values()))
    if wrong := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
        raise ValueError(f"{index} names {wrong[0]!r}: it takes safetensors files beside it only; {_SAVE_AGAIN}")
    paths = [folder / name for name in names]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {path.name}, which {index.name} names: {_SAVE_AGAIN}")
    return paths


@contextlib.contextmanager
def opening(folder: Path, kind: str) -> Iterator[None]:
    """Say in one line what a library finds wrong with a folder of a model, whatever it raises.

    Args:
        kind: what it is opened as, for the message.

    Raises:
        ValueError: with the library's first words.
        OSError, MemoryError: the machine is in the way.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = " ".join(str(error).split())
        shown = said if len(said) <= _SHOWN else f"{said[:_SHOWN]} ..."
        raise ValueError(
            f"{folder} does not open as {kind} ({type(error).__name__}: {shown}): {_SAVE_AGAIN}"
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
