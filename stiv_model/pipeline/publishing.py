"""A pipeline folder on a hub: what of it is uploaded, and whether a repository takes it.

The token is that of the environment (HF_TOKEN) or of `hf auth login`, the hub that of HF_ENDPOINT.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from diffusers.schedulers.scheduling_utils import SCHEDULER_CONFIG_NAME
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils._validators import validate_repo_id

from stiv_model.encoders import pinned
from stiv_model.pipeline import card, folders
from stiv_model.pipeline.components import NAMES
from stiv_model.pipeline.folders import INDEX, KIND

MAIN = "main"
"""The branch that a repository begins with."""
_CONFIGS = {"scheduler": (SCHEDULER_CONFIG_NAME,), "tokenizer": pinned.TOKENIZER_FILES}
_SHOWN = 200  # characters of what a hub or its library says


class Target(NamedTuple):
    """Where a folder goes."""

    name: str
    """Of the repository, ORGANISATION/NAME."""
    branch: str
    private: bool
    """Whether nobody but its owners may see it."""
    message: str
    """Of the commit."""


def files_of(folder: Path) -> list[str]:
    """Return what is uploaded of a folder, by their paths in it: all of it, which an export made.

    Raises:
        FileNotFoundError: weights of the model card are missing.
        ValueError: a file is there that no export makes, a link, or weights that are not those of the model card.
    """
    weights = card.stated(folder)
    if weights is None:
        raise ValueError(f"{folder} has no {card.FILE} that states hashes of weights: export the checkpoint again")
    found = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    for path in found:
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ValueError(f"{path} is a link, and only files that an export made are uploaded: move it away")
        if name not in weights and not _is_made(name):
            raise ValueError(f"{path} is none of the files that an export makes: move it away; nothing was uploaded")
    folders.check(folder, pinned.read_json(folder / INDEX), (KIND,), NAMES, NAMES)
    return [path.relative_to(folder).as_posix() for path in found]


def check(target: Target) -> None:
    """Refuse a repository that this token cannot write to, or that holds what is of no such pipeline.

    Raises:
        OSError: the hub cannot be reached, knows no such token, or does not let it write.
        ValueError: the name is none, or something else is in the repository.
    """
    _check_name(target)
    with _saying(target):
        access = HfApi().whoami().get("auth", {}).get("accessToken", {})
        if access.get("role") == "read":
            raise PermissionError(
                f"--push {target.name}: the token {access.get('displayName', '')!r} may only read: make one that may "
                "write, and set HF_TOKEN or use `hf auth login`"
            )
        try:
            _check_content(target, HfApi().model_info(target.name, revision=target.branch))
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return  # it will be made


def push(folder: Path, target: Target) -> str:
    """Upload a folder that an export made, in one commit, and return the address of that.

    A repository and a branch are made where they are not there. Of an earlier pipeline there, files that this one lacks
    are deleted in the same commit; other files stay.

    Raises:
        OSError, ValueError: as `check` and `files_of`; or the upload fails. The repository is as it was then, or empty.
    """
    names = files_of(folder)
    _check_name(target)
    api = HfApi()
    with _saying(target):
        api.create_repo(target.name, private=target.private or None, exist_ok=True)
        if target.branch != MAIN:
            api.create_branch(target.name, branch=target.branch, exist_ok=True)
        there = api.model_info(target.name, revision=target.branch)
        stale = _check_content(target, there) - set(names)
        commit = api.create_commit(
            target.name,
            [
                *(CommitOperationAdd(name, folder / name) for name in names),
                *(CommitOperationDelete(name) for name in sorted(stale)),
            ],
            commit_message=target.message,
            revision=target.branch,
            parent_commit=there.sha,  # somebody else's commit meanwhile is not overwritten
        )
    return str(commit.commit_url)


def _check_name(target: Target) -> None:
    try:
        validate_repo_id(target.name)
        if "/" not in target.name:
            raise HFValidationError("it has no organisation")
    except HFValidationError as error:
        said = " ".join(str(error).split())[:_SHOWN]
        raise ValueError(f"--push {target.name!r} is no ORGANISATION/NAME of a hub ({said})") from error


def _check_content(target: Target, there: ModelInfo) -> set[str]:
    """Return the files of an earlier pipeline in the repository.

    Raises:
        ValueError: it has code, a pickle or another class of pipeline, or is public and shall be private.
    """
    files = {file.rfilename for file in there.siblings or []}
    folders.refuse_foreign(target.name, files)
    if target.private and not there.private:
        raise ValueError(f"--private: {target.name} is there and public: make it private on the hub, or name another")
    if INDEX in files:
        index = pinned.read_json(Path(hf_hub_download(target.name, INDEX, revision=there.sha)))
        if index.get("_class_name") != KIND:
            raise ValueError(f"--push {target.name}: it holds a {index.get('_class_name')}, no {KIND}: name another")
    return {file for file in files if _is_made(file) or _is_weights(file)} - {card.FILE}


def _is_made(name: str) -> bool:
    """Say whether an export writes a file of this name, beside weights."""
    if name in (card.FILE, INDEX):
        return True
    part, _, file = name.partition("/")
    return part in NAMES and (
        file in _CONFIGS.get(part, (pinned.CONFIG,)) or file.endswith(f".safetensors{pinned.INDEX}")
    )


def _is_weights(name: str) -> bool:
    part, _, file = name.partition("/")
    return part in NAMES and "/" not in file and file.endswith(".safetensors")


@contextmanager
def _saying(target: Target) -> Iterator[None]:
    """Say in one line why a hub does not take it.

    Raises:
        OSError: the hub cannot be reached, or answers no.
        ValueError: as the block.
    """
    place = f"--push {target.name}"
    try:
        yield
    except (LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
        raise PermissionError(f"{place}: {_why_not_asked(error)}; nothing was uploaded") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise OSError(f"{place}: {_REMEDIES.get(status, _OTHER)} ({_said(error)})") from error
    except (PermissionError, ValueError, MemoryError):
        raise
    except Exception as error:  # of its client of HTTP, or of what uploads large files
        raise ConnectionError(
            f"{place}: the hub cannot be reached, or went away ({type(error).__name__}: {_said(error)}): the folder is "
            "whole, and the same command uploads it later"
        ) from error


_REMEDIES = {
    401: "the hub knows no such token, or nobody may make that repository by it: set HF_TOKEN or use `hf auth login`",
    403: "the token may not write there: take one that may, or another organisation",
    404: "the hub has no model of that name that this token can see; it may be a data set or a space",
    409: "the repository is of another type, or somebody else is changing it: look at it, and try again",
    412: "somebody else changed the repository meanwhile: look at it, and push again",
}
_OTHER = "the hub does not take it"


def _why_not_asked(error: Exception) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it"
    return "there is no token of a hub here: set HF_TOKEN or use `hf auth login`"


def _said(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]} ..."
