"""What is evaluated: a suite says of each of its videos what was asked for, and loads it."""

import hashlib
import json
import logging
import tokenize
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np

from stiv_model.encoders.video_file import CODEC, CRF, read_video
from tasks.evaluation.card import Model, Suite
from tasks.evaluation.judge import ATTRIBUTES, COMBINATIONS
from tasks.evaluation.metrics import Evaluated
from tasks.storage import atomic, tables

log = logging.getLogger(__name__)


class Unusable(Exception):  # noqa: N818 (a verdict on the video, not a fault of ours)
    """This video is not measured; carries the row's status and reason."""

    def __init__(self, status: Literal["rejected", "failed"], reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Loaded(NamedTuple):
    """A video, and what is known of its file."""

    entry: Evaluated
    facts: dict[str, Any]
    """fps, pixels (arrays or file), codec, crf, corpus; None where nobody knows."""


class Entry(NamedTuple):
    """One video of a suite."""

    id: str
    group: str
    asked: dict[str, Any]
    """What the suite asks for, as JSON has it."""
    stamp: Callable[[], str]
    """Returns the sha256 of the video's bytes; `absent` where there are none."""
    load: Callable[[], Loaded]
    """Raises Unusable."""


class SuiteRun(NamedTuple):
    """A suite with the videos of one model."""

    suite: Suite
    model: Model
    entries: list[Entry]
    together: int = 1
    """So many videos are made at once, and stay in one shard."""


def hash_of(asked: Sequence[Any]) -> str:
    """Return the sha256 of what a suite asks for."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def stamp_of(path: Path) -> str:
    """Return the sha256 of a file; `absent` where it is not."""
    return atomic.sha256_file(path) if path.is_file() else "absent"


_NO_ARRAY = (OSError, ValueError, TypeError, OverflowError, MemoryError, SyntaxError, tokenize.TokenError)
"""What numpy raises of a file that is none of its own: its header is read as Python."""


def load_array(path: Path) -> np.ndarray:
    """Return a video from a .npy file, uint8 RGB (T, H, W, 3).

    Raises:
        Unusable: it is none.
    """
    try:
        held = np.lib.format.open_memmap(path, mode="r")  # holds the shape that it claims against the file's size
        video = np.array(held)
    except _NO_ARRAY as error:
        log.warning("%s: %s", path, error)
        raise Unusable("failed", "unreadable") from None
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or not video.size:
        log.warning("%s: %s of shape %s is no uint8 (T, H, W, 3)", path, video.dtype, video.shape)
        raise Unusable("failed", "unreadable")
    return video


# ---------------------------------------------------------------------------------------------------------- shapes


def shapes(folder: Path) -> SuiteRun:
    """Return the suite of the samples that stage samples made.

    Raises:
        FileNotFoundError: there are none.
        ValueError: what lists them is not what the stage writes.
    """
    path = folder / tables.SAMPLE_LIST
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run the stage that makes it (dvc repro samples)")
    content = json.loads(path.read_text())
    rows = content["samples"]
    if not rows:
        raise ValueError(f"{path} lists no sample: make {folder} again (dvc repro -f samples)")
    made = content.get("made") or {}
    entries = [_shape(row, folder, {"fps": made.get("fps"), "corpus": made.get("corpus")}) for row in rows]
    suite = Suite(name="shapes", sha256=hash_of([entry.asked for entry in entries]), seeds=made.get("seeds"))
    model = Model(sampler=content.get("sampler") or None, **{key: made.get(key) for key in _MADE_BY})
    return SuiteRun(suite, model, entries)


_MADE_BY = ("weights", "recipes", "precision", "machine")


def _shape(row: dict[str, Any], folder: Path, known: dict[str, Any]) -> Entry:
    asked = {name: row[name] for name in ("id", "mode", "held_out", "prompt", *ATTRIBUTES)}
    for given in ("image", "truth", "truth_array"):
        if row.get(given):
            asked[given] = stamp_of(folder / row[given])
    group = f"{row['mode']} {COMBINATIONS[row['held_out']]}"
    file = folder / (row.get("file") or "")
    return Entry(row["id"], group, asked, partial(stamp_of, file), partial(_load_shape, row, group, folder, known))


def _load_shape(row: dict[str, Any], group: str, folder: Path, known: dict[str, Any]) -> Loaded:
    if row["status"] != "ok":
        raise Unusable("failed", "not_generated")
    if any(row[name] is None for name in ATTRIBUTES):
        raise Unusable("rejected", "no_truth")
    video = load_array(folder / row["file"])
    entry = Evaluated(
        row["id"],
        video,
        group,
        prompt=row["prompt"],
        image=_picture(folder / row["image"]) if row.get("image") else None,
        given_frames=tuple(row.get("given_frames") or ([0] if row.get("image") else [])),
        truth=_truth(row, folder),
        mode=row["mode"],
        held_out=row["held_out"],
        **{name: row[name] for name in ATTRIBUTES},
    )
    return Loaded(entry, known | {"pixels": "arrays", "codec": None, "crf": None})


def _truth(row: dict[str, Any], folder: Path) -> np.ndarray | None:
    """Return the real video, uint8 RGB (T, H, W, 3): as it was drawn where that is there, else from its file."""
    if row.get("truth_array"):
        return load_array(folder / row["truth_array"])
    return read_video(folder / row["truth"]) if row.get("truth") else None


TRUTH_FILE = {"codec": CODEC, "crf": CRF}
"""How stage samples wrote the real videos, which are read from files."""


def _picture(path: Path) -> np.ndarray:
    """Return a picture as uint8 RGB (H, W, 3).

    Raises:
        FileNotFoundError: it is not there, or is no picture.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(f"{path} is missing or no picture: make data/samples again (dvc repro -f samples)")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
