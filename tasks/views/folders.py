"""Folders of views: an object is a folder with seven pictures, the given view first, and the cameras that saw it.

`OBJECT/000.png` is the given view, `001.png` to `006.png` are those from the paper's cameras, and `cameras.json` says
of each, in this order, whence it was taken. Only the differences of azimuths count: that of the given view is 0.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from stiv_model.diffusion.cameras import CAMERAS, Camera
from stiv_model.settings import Settings
from tasks.applications.view_files import CameraRecord

CAMERA_FILE = "cameras.json"
PICTURES = tuple(f"{number:03d}.png" for number in range(1 + len(CAMERAS)))
"""The given view and the six others, by the names of their files."""
_TOLERANCE = 0.5  # degrees
_MOST_BYTES = 1_000_000  # of cameras.json, before it is read


class CameraFile(Settings):
    """What `cameras.json` holds."""

    views: tuple[CameraRecord, ...]
    """One for each picture, in their order."""
    distance: float | None = None
    """From the camera to the object's middle, in the object's own units; for who renders more."""
    field_of_view: float | None = None
    """Degrees, of the picture's height; for who renders more."""


class Refused(Exception):  # noqa: N818 (its name is what it says)
    """An object cannot be used.

    Attributes:
        status: `rejected` or `failed`.
        reason: its code.
    """

    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


def objects(folder: Path) -> Iterator[str]:
    """Give the names of the objects in a folder, sorted: those of its folders.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no folders.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there: name a folder of renders, as stiv views-corpus makes them")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise ValueError(f"{folder} has no folders: each object is one, with {PICTURES[0]} to {PICTURES[-1]}")
    yield from names


def check(folder: Path) -> None:
    """Refuse an object of which a picture or a camera is missing, or that other cameras saw.

    Raises:
        Refused: with the code.
    """
    if any(not (folder / name).is_file() for name in PICTURES):
        raise Refused("rejected", "missing_view")
    cameras = read_cameras(folder / CAMERA_FILE)
    if len(cameras) != len(PICTURES):
        raise Refused("rejected", "other_cameras")
    given, *made = cameras
    for found, wanted in zip(made, CAMERAS, strict=True):
        around = (found.azimuth - given.azimuth - wanted.azimuth + 180) % 360 - 180
        if max(abs(around), abs(found.elevation - wanted.elevation)) > _TOLERANCE:
            raise Refused("rejected", "other_cameras")


def read_cameras(file: Path) -> list[Camera]:
    """Return the cameras of an object.

    Raises:
        Refused: there are none, or they cannot be read.
    """
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise Refused("failed", "bad_cameras")
        held = CameraFile.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        raise Refused("rejected", "no_cameras") from None
    except (OSError, ValueError, RecursionError, ValidationError):
        raise Refused("failed", "bad_cameras") from None
    return [Camera(view.elevation, view.azimuth) for view in held.views]


def cameras_json(cameras: Iterable[Camera], distance: float, field_of_view: float) -> str:
    """Return what `cameras.json` of an object says."""
    views = tuple(CameraRecord(**camera._asdict()) for camera in cameras)
    return CameraFile(views=views, distance=distance, field_of_view=field_of_view).model_dump_json(indent=1) + "\n"
