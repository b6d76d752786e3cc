"""Pipeline folders: where one is, and how one takes the place of another."""

import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from diffusers.schedulers.scheduling_utils import SCHEDULER_CONFIG_NAME
from huggingface_hub import get_cached_repo_tree, snapshot_download

from stiv_model.encoders import pinned, vae_files
from stiv_model.pipeline import card
from stiv_model.weights import durable, metadata

INDEX = "model_index.json"
SHIPPED = Path(__file__).parents[1] / "embedded" / "shapes"
"""The pipeline folder that comes with the package."""
KIND = "StivPipeline"
"""The class of a pipeline folder, as its index names it."""
SUFFIXES = (".json", ".safetensors", ".txt", ".model")
"""Of the files that are read: configurations, weights and vocabularies; no code and no pickle."""
_LIBRARIES = ("diffusers", "transformers", "stiv_model")
_NO_CODE = (
    f"it takes a class of {', '.join(_LIBRARIES)}, and code of its own is not run, whatever trust_remote_code says: "
    "export the checkpoint again"
)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_CODE = (".py", ".pyc", ".pyd", ".so", ".ipynb")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")


def find(name: str, parts: Collection[str], kinds: Collection[str] = (KIND,), **hub: Any) -> Path:
    """Return a folder as it is, or of a repository of the hub what is read of it.

    Args:
        name: a folder, or `ORGANISATION/NAME`.
        parts: the components that are to be read; nothing is fetched for others.
        kinds: names that the class of the pipeline may have in a repository.
        hub: where to look and with what, as `huggingface_hub.snapshot_download` takes it.

    Raises:
        FileNotFoundError: it is neither, or the hub cannot be reached or does not have it.
        ValueError: the repository has code or a pickle, or is of another class.
    """
    if Path(name).is_dir():
        folder = Path(name)
    elif not _HUB_NAME.fullmatch(name):
        raise FileNotFoundError(f"{name}: no such folder, and no name of a hub repository, ORGANISATION/NAME, either")
    else:
        folder = _fetched(name, parts, kinds, hub)
    if not (folder / INDEX).is_file():
        meant = (
            "; it is a checkpoint, which --checkpoint of stiv sample opens" if metadata.is_checkpoint(folder) else ""
        )
        raise FileNotFoundError(
            f"{name} has no {INDEX}: name a folder that save_pretrained or `stiv export` wrote{meant}"
        )
    return folder


def _fetched(name: str, parts: Collection[str], kinds: Collection[str], hub: dict[str, Any]) -> Path:
    """Fetch a repository of the hub, its index first: of one that is refused nothing else comes here."""
    wanted = [INDEX, card.FILE, *(f"{part}/*{suffix}" for part in sorted(parts) for suffix in SUFFIXES)]
    with _fetching(name):
        first = Path(snapshot_download(name, allow_patterns=wanted[:2], **hub))
        listed = get_cached_repo_tree(name, revision=first.name, cache_dir=hub.get("cache_dir"))
    refuse_foreign(name, [file.path for file in listed])
    if (first / INDEX).is_file():
        _check_kind(f"{name}/{INDEX}", pinned.read_json(first / INDEX), kinds)
    with _fetching(name):  # by its commit, in whose list nothing was found: a branch may have moved
        return Path(snapshot_download(name, allow_patterns=wanted, **(hub | {"revision": first.name})))


@contextmanager
def _fetching(name: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # whatever the hub's client, or that of HTTP beneath, raises
        raise FileNotFoundError(
            f"{name}: no such folder here, and as a hub repository it cannot be loaded ({type(error).__name__}): "
            "check name, revision and token, or fetch it where the hub can be reached and name the folder"
        ) from error


def refuse_foreign(name: str, files: Collection[str]) -> None:
    """Refuse a repository of the hub that has code or a pickle: nothing here would read them, and others might.

    Args:
        files: all of it, by their paths.

    Raises:
        ValueError: with the first.
    """
    for file in sorted(files):
        ending = PurePosixPath(file).suffix.lower()
        if ending in (*_CODE, *_PICKLES):
            what = "code" if ending in _CODE else "a pickle, which can hold code"
            raise ValueError(
                f"{name} has {file}, {what}: a repository of a {KIND} has none, and none of this one was loaded; ask "
                "its owner to take it out, or name a revision without"
            )


def _check_kind(place: object, index: dict[str, Any], kinds: Collection[str]) -> None:
    kind = index.get("_class_name")
    if isinstance(kind, list):  # with which diffusers names a file of code
        raise ValueError(f"{place} is of {kind!r}: {_NO_CODE}")
    if kind not in kinds:
        raise ValueError(f"{place} is of a {kind}: open it with the class of that name")


def check(
    folder: Path, index: dict[str, Any], kinds: Collection[str], parts: Collection[str], names: Collection[str]
) -> None:
    """Refuse a folder that is not what its index and its card say, before diffusers opens it.

    Args:
        index: model_index.json.
        kinds: names that the class of the pipeline may have there.
        parts: the components that are to be read.
        names: of all components.

    Raises:
        FileNotFoundError: a file of a part is missing.
        ValueError: it is of another class, or a part is of none of the libraries that are read, or no such file; or as
            `card.check`.
    """
    _check_kind(folder / INDEX, index, kinds)
    for part in sorted(parts):
        named = index.get(part)
        words = named if isinstance(named, list) and all(isinstance(word, str) for word in named) else []
        if len(words) != 2 or words[0].partition(".")[0] not in _LIBRARIES:
            raise ValueError(f"{folder / INDEX} names {named!r} as {part}: {_NO_CODE}")
    card.check(folder, parts, names)
    if "transformer" in parts:
        pinned.check_folder(folder / "transformer", vae_files.WEIGHTS)
    if "scheduler" in parts:
        pinned.read_json(folder / "scheduler" / SCHEDULER_CONFIG_NAME)


def hashes(folder: Path, parts: Collection[str]) -> dict[str, str]:
    """Return the sha256 of the index and of every file of weights, by their names in the folder.

    Where the model card states those of the weights, these are they: loading compares them with the files, which need
    not be read once more for it.

    Args:
        parts: names of all components.

    Raises:
        OSError: a file cannot be read.
        ValueError: as `card.stated`.
    """
    weights = card.stated(folder) or card.hashes(folder, parts)
    return {INDEX: card.sha256(folder / INDEX), **dict(sorted(weights.items()))}


@contextmanager
def replaced(folder: Path, kind: str, parts: Collection[str]) -> Iterator[Path]:
    """Give an empty folder to write to, whose content then takes the place of an earlier one of the same kind.

    An earlier one stays whole until the new one is: files that the new one lacks, such as shards, are gone after it,
    and weights that are still mapped from the earlier files stay readable. Other files of `folder` are left alone, but
    for a model card that states hashes of weights, which goes on without them where the new ones are others.

    Args:
        folder: where the pipeline shall be.
        kind: `_class_name` of the pipeline.
        parts: names of its components, each a folder.

    Raises:
        ValueError: `folder` is a file, holds such a folder that is not of an earlier pipeline of this kind, or a model
            card that cannot be read.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder")
    index = folder / INDEX
    earlier = _class_name(index)
    if earlier != kind and (there := [name for name in (*parts, INDEX) if (folder / name).exists()]):
        raise ValueError(
            f"{folder} has {there[0]}, which is of no {kind} and would be overwritten: name another folder, or move "
            "it away"
        )
    card.stated(folder)  # refuses a card that could not be kept true, before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    # within the folder, so that it is on the same disk, wherever that is mounted
    aside = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
    new, old = aside / "new", aside / "old"
    new.mkdir()
    old.mkdir()
    try:
        yield new
        card.keep_true(folder, new, parts)
        durable.sync_tree(new)
    except BaseException:
        shutil.rmtree(aside)
        raise
    index.unlink(missing_ok=True)  # without it nobody takes what is half exchanged for a pipeline
    for name in sorted({*parts, *(path.name for path in new.iterdir())} - {INDEX}):
        if (folder / name).exists():
            (folder / name).rename(old / name)
        if (new / name).exists():
            (new / name).rename(folder / name)
    (new / INDEX).rename(index)
    durable.sync(folder)
    shutil.rmtree(aside)


def _class_name(index: Path) -> str | None:
    try:
        return json.loads(index.read_text())["_class_name"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
