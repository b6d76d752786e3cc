"""What lies in a folder of views that a model has made."""

from pathlib import Path

import numpy as np

from stiv_model.diffusion.cameras import CAMERAS
from stiv_model.settings import Settings

ORBIT = "orbit.mp4"
"""The way around the object, from the given view on."""
GRID = "grid.png"
VIEWS = tuple(f"view-{number}.png" for number in range(1, 1 + len(CAMERAS)))
"""In the order of the cameras."""
_BLUE = (37, 99, 235)
_ACROSS = 3  # views side by side


class CameraRecord(Settings):
    """Whence a view is taken."""

    elevation: float
    """Degrees above the object's equator."""
    azimuth: float
    """Degrees around the object, counter-clockwise seen from above; that of the given view is 0."""


def records() -> tuple[CameraRecord, ...]:
    """Return the cameras of the views, in their order, as records and `cameras.json` have them."""
    return tuple(CameraRecord(**camera._asdict()) for camera in CAMERAS)


def check_folder(option: str, folder: Path) -> None:
    """Refuse a folder that has other files in it than views.

    Raises:
        ValueError: it has, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{option} {folder} is a file: name a folder, which the views are put into")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ORBIT).exists():
        raise ValueError(f"{option} {folder} is not empty, and has no {ORBIT} of earlier views: name a new folder")


def grid(picture: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Return the given view, twice as large and with a blue frame, and beside it the six, uint8 RGB (2 H, 5 W, 3).

    Args:
        picture: uint8 RGB (H, W, 3).
        views: uint8 RGB (6, H, W, 3).
    """
    large = picture.repeat(2, axis=0).repeat(2, axis=1)
    edge = max(2, len(picture) // 32)
    framed = np.full_like(large, _BLUE)
    framed[edge:-edge, edge:-edge] = large[edge:-edge, edge:-edge]
    lines = [np.concatenate(list(views[first : first + _ACROSS]), axis=1) for first in range(0, len(views), _ACROSS)]
    return np.concatenate([framed, np.concatenate(lines)], axis=1)
