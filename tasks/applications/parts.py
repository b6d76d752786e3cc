"""Parts of a video that is being made, kept beside it until it has its name, so that a killed command goes on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tasks.storage import atomic


class Parts:
    """A folder of parts, each a file of its own that is whole or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return a part, uint8 RGB (T, H, W, 3): what is kept of it, else what `make` returns, which is kept then.

        Raises:
            OSError: it cannot be read or written.
        """
        path = self.folder / f"{name}.npy"
        if path.is_file():
            found: np.ndarray = np.load(path, allow_pickle=False)
            return found
        part = make()
        with atomic.atomic_write(path) as made, made.open("wb") as file:
            np.save(file, part, allow_pickle=False)
        return part

    def kept(self, kind: str) -> int:
        """Return how many parts of a kind, such as `window`, are there."""
        return len(list(self.folder.glob(f"{kind}-*.npy")))


def folder_of(out: Path) -> Path:
    """Return where the parts of a video lie."""
    return out.with_name(f"{out.name}.partial")


def begun(out: Path) -> dict[str, Any] | None:
    """Return what the parts beside `out` are of, as `open_parts` wrote it; None where there are none.

    Raises:
        ValueError: the folder is none of parts.
    """
    folder = folder_of(out)
    if not folder.exists():
        return None
    run = atomic.begun_run(out)
    if not isinstance(run, dict):
        raise ValueError(
            f"{folder} is there, and holds no parts of a video that can be gone on with: take it away, or "
            "name another --out"
        )
    return run


def open_parts(out: Path, run: dict[str, Any], restart: bool) -> Parts:
    """Return the parts beside `out`, as the last attempt left them.

    Args:
        run: what the video is made of, as JSON has it.
        restart: whether parts of an earlier attempt are deleted.

    Raises:
        ValueError: the folder holds what is of another video, or of none.
    """
    if begun(out) is not None and restart:
        shutil.rmtree(folder_of(out))
    if (key := atomic.other_run(out, run)) is not None:
        raise ValueError(
            f"{folder_of(out)} holds the begin of another video ({key} differs): ask for that one to go on with it, "
            "name another --out, or say --restart to begin anew"
        )
    return Parts(atomic.open_workdir(out, run))
