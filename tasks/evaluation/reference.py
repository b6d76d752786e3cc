"""Features of real clips that come with the package, or that somebody saved, and what they are features of.

`python benchmarks/fvd_reference.py` made shapes.safetensors.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tasks.evaluation.protocol import Protocol
from tasks.storage import atomic

SHAPES = Path(__file__).parent / "reference" / "shapes.safetensors"
"""Of 256 clips of held-out combinations of the demo's corpus."""
_KEY, _ROWS = "protocol", "features"


class Reference(NamedTuple):
    """Features of real clips."""

    features: np.ndarray
    """Float64 (n, K)."""
    protocol: Protocol
    """What they are features of."""

    @property
    def sha256(self) -> str:
        """Hash of the features as files have them: float32, row by row."""
        rows = np.ascontiguousarray(self.features, np.float32)
        return hashlib.sha256(repr(rows.shape).encode() + rows.tobytes()).hexdigest()


def read(path: Path) -> Reference:
    """Return the features that a file holds.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no file of features.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: stiv fvd REAL --save FILE makes such a file of real clips")
    try:
        with safe_open(path, "np") as file:
            return Reference(
                file.get_tensor(_ROWS).astype(np.float64), Protocol.model_validate_json((file.metadata() or {})[_KEY])
            )
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no features ({error}): stiv fvd REAL --save FILE makes such a file") from error


def write(path: Path, reference: Reference) -> None:
    """Write features, in float32, which the network gives."""
    with atomic.atomic_write(path) as tmp_path:
        rows = np.ascontiguousarray(reference.features, np.float32)
        save_file({_ROWS: rows}, tmp_path, {_KEY: reference.protocol.model_dump_json()})
