"""Which code makes a stage's output: what dvc.yaml lists, hashed."""

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ("flows", "tasks", "stiv_model")
DECLARATION = "dvc.yaml"
OPTIONAL = "views/stages.yaml"
"""Stages that no pipeline runs unless they are named, and that DVC does not know before."""


@cache
def code_of(stage: str) -> str:
    """Return one hash of the files that decide about the bytes of a stage's output.

    Rows that other code made are not mixed with new ones: neither those of an attempt that was killed, nor those that
    are reused from an earlier run. Settings count by their values, so the modules settings.py do not.
    """
    deps = (declared(ROOT / DECLARATION) | declared(ROOT / OPTIONAL))[stage]["deps"]
    digest = hashlib.sha256()
    for file in sorted(file for dep in deps if is_code(dep) for file in _files(ROOT / dep)):
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def declared(file: Path) -> dict[str, Any]:
    """Return the stages that a file declares, by name; none where there is no such file."""
    # by the loader in C, ten times as fast: a command reads it several times
    return yaml.load(file.read_text(), yaml.CSafeLoader)["stages"] if file.exists() else {}


def is_code(dep: object) -> bool:
    """Say whether a dependency of dvc.yaml is code of ours: a module, or a room's folder."""
    return isinstance(dep, str) and dep.split("/")[0] in PACKAGES


def file_hashes(dep: str) -> dict[str, str]:
    """Return the SHA-256 of every file of a module or room that dvc.yaml names, by its path in the project."""
    files = sorted(_files(ROOT / dep))
    return {str(file.relative_to(ROOT)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _files(dep: Path) -> Iterator[Path]:
    """Give the files of a dependency, as DVC sees them (.dvcignore).

    Raises:
        FileNotFoundError: it is not there.
    """
    if dep.is_file():
        yield dep
        return
    found = [file for file in dep.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    if not found:
        raise FileNotFoundError(f"dvc.yaml names {dep.relative_to(ROOT)}, which does not exist")
    yield from (file for file in found if file.name != "settings.py")
