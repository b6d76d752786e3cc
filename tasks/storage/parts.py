"""Folders of parts: files that stay as they were written while videos are added, so that adding one costs little.

A video, and all that is made of it, belongs to the part that the first digits of its sha256 say. How many parts there
are is chosen when the folder is made first, and noted in `parts.json`; `part_hashes.json` has the hash of each.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

FILE = "parts.json"
HASHES = "part_hashes.json"

_DIGITS = 8  # of the sha256, as many as fit 32 bits
MOST = 16384
"""Parts of a folder. A file costs DVC 1 ms to store and 46 us to look at."""
_MOST_VIDEOS_PER_PART = 64
"""Beyond, the number of parts is chosen anew, unless there are the most already."""


class Parts(NamedTuple):
    """The parts of a folder."""

    number: int
    """How many parts there are, with those that hold nothing and have no file."""
    sha256: dict[str, str]
    """Of each file's bytes, by its name."""


def choose(videos: int, before: int | None, at_least: int = 1) -> int:
    """Return the number of parts for so many videos: the one of the run before while it fits, else a power of two.

    There are one or two videos in a part, while there are not too many parts: so few that one in a hundred videos more,
    wherever it falls, makes a fiftieth of the bytes anew at most, and that a killed stage loses little.

    Args:
        before: of an earlier run, if there was one.
        at_least: so many parts are needed for their files not to be too large; MOST at most.
    """
    if before is not None and before >= at_least and videos <= _MOST_VIDEOS_PER_PART * before:
        return before
    wanted = max(1 << max(0, videos.bit_length() - 1), 1 << (at_least - 1).bit_length())
    return min(MOST, wanted)


def numbers(names: pa.Array | Sequence[str], count: int) -> np.ndarray:
    """Return to which of `count` parts each video or clip belongs: int64, 0 to count - 1, rising with the names.

    Args:
        names: sha256 of videos, or ids of clips, which begin with it.
    """
    texts = names.to_pylist() if isinstance(names, pa.Array) else names
    digits = np.array([int(name[:_DIGITS], 16) for name in texts], np.int64)
    return (digits * count) >> (4 * _DIGITS)


def number(name: str, count: int) -> int:
    """Return to which of `count` parts a video (its sha256) or a clip (its id) belongs."""
    return (int(name[:_DIGITS], 16) * count) >> (4 * _DIGITS)


def file_name(part: int, suffix: str) -> str:
    """Return the name of a part's file."""
    return f"part-{part:05d}{suffix}"


def part_of(file: Path) -> int:
    """Return the number of the part that a file is, by its name."""
    return int(file.name.partition(".")[0].removeprefix("part-"))


def files(folder: Path, suffix: str) -> list[Path]:
    """Return the files of all parts of a folder, in order."""
    return sorted(folder.glob(f"part-*{suffix}"), key=part_of)


def write(folder: Path, count: int, sha256: dict[str, str]) -> None:
    """Write how many parts a folder has, and the hash of each that has a file."""
    (folder / FILE).write_text(json.dumps({"parts": count}) + "\n")
    (folder / HASHES).write_text(json.dumps(dict(sorted(sha256.items())), indent=1) + "\n")


def read(folder: Path) -> Parts:
    """Read how many parts a folder has, and their hashes.

    Raises:
        FileNotFoundError, ValueError: as `count`; or the hashes are damaged.
    """
    hashes = _content(folder / HASHES)
    if not all(isinstance(value, str) for value in hashes.values()):
        raise ValueError(f"{folder / HASHES} is damaged: make {folder} again")
    return Parts(count(folder), hashes)


def count(folder: Path) -> int:
    """Return how many parts a folder has, which costs the same however many there are.

    Raises:
        FileNotFoundError: the folder does not say.
        ValueError: what it says is damaged.
    """
    path = folder / FILE
    found = _content(path).get("parts")
    if type(found) is not int or found < 1 or found > MOST:
        raise ValueError(f"{path} says {found!r} parts, and there can be 1 to {MOST}: make {folder} again")
    return found


def _content(path: Path) -> dict[str, Any]:
    if not path.exists():
        folder = path.parent
        raise FileNotFoundError(
            f"{path} does not exist: run the stage that makes {folder} (dvc repro, or stiv pipeline)"
        )
    try:
        content = json.loads(path.read_text())
        assert isinstance(content, dict), "no object"
    except (ValueError, AssertionError) as error:
        raise ValueError(f"{path} is damaged ({error}): make {path.parent} again") from None
    return content


def count_before(folders: Iterable[Path]) -> int | None:
    """Return the number of parts that the first of these folders has that has any."""
    for folder in folders:
        try:
            return count(folder)
        except (FileNotFoundError, ValueError):
            continue
    return None
