"""The certificate of a warm start: where each starting weight came from, and what was executed to show it.

Readable without torch.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, ValidationError

from stiv_model import settings_errors
from stiv_model.settings import RecordedModel, Run, Settings
from stiv_model.weights import metadata
from stiv_model.weights.metadata import Role, Trained

CERTIFICATE = "certificate.json"
START = "start"
"""The folder, in that of a run, of the starting weights and their certificate."""

Transform = Literal[
    "taken",
    "inflated in time",
    "repeated",
    "widened with zeros",
    "joined",
    "interpolated",
    "initialised",
]
"""`joined`: a modulation whose rows for temporal attention come from the temporal parent; `interpolated`: learned
positions; `initialised`: from no parent."""


class Parent(Settings):
    """One checkpoint that weights came from."""

    folder: str
    sha256: str
    """Of its weights file."""
    averaged: str
    """What that file says of the average it holds."""


class Source(Settings):
    """A parameter of a parent, whose file the certificate names under `parents`."""

    parent: Role
    parameter: str


class Row(Settings):
    """Where one parameter of the child came from, and how."""

    parameter: str
    sources: tuple[Source, ...]
    transform: Transform


class Check(Settings):
    """A check that was executed."""

    name: str
    measured: NonNegativeFloat
    tolerance: NonNegativeFloat


class Certificate(Settings):
    """certificate.json, next to the starting weights and, after training, next to the trained ones."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    kind: str
    """In words, such as `T2I -> T2V`."""
    parents: dict[Role, Parent]
    model: RecordedModel
    is_video: bool
    target: Annotated[Trained, Field(alias="becomes")]
    """What the child is trained for; the file calls it `becomes`."""
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    checks: Annotated[tuple[Check, ...], Field(min_length=1)]
    weights_sha256: str
    """Of the file of starting weights."""


def sha256(path: Path) -> str:
    """Return the hash of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(folder: Path, run: Run) -> Certificate:
    """Return the certificate of the starting weights in `folder`, if it is for this run and for these weights.

    Raises:
        ValueError: there is none, or it is of other parents, another model, another recipe or other weights.
    """
    path = folder / CERTIFICATE
    remedy = f"delete {folder} and run stiv train again, which makes it anew"
    if not path.exists():
        raise ValueError(f"{path} is missing, and no training starts from {run.parent} without it: {remedy}")
    try:
        found = Certificate.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: {settings_errors.lines(error)[0]}: {remedy}") from error
    if wrong := _differs(found, run) or _damage(found, folder):
        raise ValueError(f"{path} {wrong}: {remedy}")
    return found


def _differs(found: Certificate, run: Run) -> str | None:
    """Say in what a certificate is not for this run, None when it is."""
    wanted = {role: digest for role, (_, digest) in run.parents.items()}
    for role in wanted.keys() | found.parents.keys():
        there = found.parents[role].sha256 if role in found.parents else None
        if there != wanted.get(role):
            return (
                f"is of another {role} parent: sha256 {there} there, {wanted.get(role)} in run.json "
                f"({run.parents[role][0] if role in run.parents else 'none'})"
            )
    pairs = {
        f"model.{key}": (value, metadata.flat(run.model).get(key)) for key, value in metadata.flat(found.model).items()
    }
    pairs |= {key: (getattr(found.target, key), getattr(run.recipe, key)) for key in ("frames", "clean_frames")}
    pairs["is_video"] = (found.is_video, run.recipe.frames > 1)
    differ = [f"{key} {there} there, {here} here" for key, (there, here) in pairs.items() if there != here]
    return f"is for another model ({', '.join(differ)})" if differ else None


def _damage(found: Certificate, folder: Path) -> str | None:
    """Say what does not hold of what a certificate states, None when all does."""
    for one in found.checks:
        if one.measured > one.tolerance:
            return f"states a check that failed: {one.name}: {one.measured:.3g}, tolerance {one.tolerance:.3g}"
    path = folder / metadata.WEIGHTS
    if not path.exists():
        return f"is without its weights ({path} is missing)"
    if (digest := sha256(path)) != found.weights_sha256:
        return f"is of other weights: sha256 {found.weights_sha256} there, {path} has {digest}"
    return None
