"""The files of weights that VBench reads: which they are, whether they are there, and whether they are those."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.storage import atomic

_DATA = Path(__file__).with_name("weights.json")

Status = Literal["ok", "not known", "missing", "another"]
"""`not known`: it is there, and nobody has said what its sha256 should be."""


class Weights(NamedTuple):
    """One file."""

    path: str
    """Under the folder of weights."""
    source: str
    sha256: str | None
    """As far as it is known: all of its digits, the first ones, or None."""
    dimensions: tuple[str, ...]
    """That read it."""


def listed(dimensions: Collection[str] | None = None) -> Iterator[Weights]:
    """Yield the files that these dimensions read, or all."""
    for row in json.loads(_DATA.read_text(encoding="utf-8"))["files"]:
        one = Weights(row["path"], row["from"], row["sha256"], tuple(row["dimensions"]))
        if dimensions is None or set(dimensions) & set(one.dimensions):
            yield one


def status(weights: Weights, folder: Path) -> tuple[Status, str]:
    """Return what is there of a file, and its sha256; empty where it is missing.

    Raises:
        OSError: it cannot be read.
    """
    path = folder / weights.path
    if not path.is_file():
        return "missing", ""
    found = atomic.sha256_file(path)
    if weights.sha256 is None:
        return "not known", found
    return ("ok" if found.startswith(weights.sha256) else "another"), found


def check(folder: Path, dimensions: Collection[str]) -> None:
    """Refuse a folder that lacks what these dimensions read: VBench would fetch it in the middle of a run.

    Raises:
        OSError: a file cannot be read.
        ValueError: files are missing, or are others than those that are known.
    """
    found = [(one, status(one, folder)[0]) for one in listed(dimensions)]
    if wrong := [(one, what) for one, what in found if what in ("missing", "another")]:
        one, what = wrong[0]
        raise ValueError(
            f"{len(wrong)} of {len(found)} files of weights are not those in {folder}: {one.path} is {what}, for "
            f"{', '.join(one.dimensions)}: `stiv vbench weights` says where each comes from"
        )
