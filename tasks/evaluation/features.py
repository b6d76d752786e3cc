"""Features of clips, kept by the hash of their pixels: what was computed once is never computed again.

.cache/features/EXTRACTOR/CLIP.npy   float64 (K,); EXTRACTOR and CLIP are the first digits of hashes
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.storage import atomic

if TYPE_CHECKING:
    from stiv_model.metrics.extractors import Extractor

CACHE = Path(".cache/features")
"""In the workspace."""


def clip_hash(clip: np.ndarray) -> str:
    """Return the sha256 of a clip's shape and pixels, uint8 RGB (T, H, W, 3)."""
    digest = hashlib.sha256(repr(clip.shape).encode())
    digest.update(np.ascontiguousarray(clip).data)
    return digest.hexdigest()


def features_of(clip: np.ndarray, extractor: "Extractor", cache: Path = CACHE) -> np.ndarray:
    """Return the features of a clip, float64 (K,).

    Args:
        clip: uint8 RGB (T, H, W, 3).
        extractor: computes them.
        cache: folder where they are kept.

    Raises:
        ValueError: the clip is too short for the extractor, or a feature is no finite number.
    """
    path = cache / extractor.sha256[:16] / f"{clip_hash(clip)[:32]}.npy"
    try:
        return np.load(path, allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):  # not there, or of a disk that was full
        row = extractor.features(clip)
    if not np.isfinite(row).all():
        raise ValueError(f"{extractor.name} gives features that are not all finite numbers")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_write(path) as tmp_path, tmp_path.open("wb") as file:
        np.save(file, row)
    return row
