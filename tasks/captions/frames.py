"""The frames of a clip that a model is shown: some of its stills, JPEG bytes as stage shots made them."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from tasks.storage import stills

T = TypeVar("T")
_AT_ONCE = 64  # clips whose stills are in memory together, for each shard


class Frames(NamedTuple):
    """What is shown of one clip."""

    pictures: tuple[bytes, ...]
    """In order of time."""
    places: tuple[float, ...]
    """Where in the clip each is: 0 is its beginning, 1 its end."""


def shown(shots: Path, clips: Sequence[str], count: int) -> Iterator[dict[str, Frames | None]]:
    """Yield the frames of the clips, by their ids, for some clips at a time; None where a still is no whole picture.

    Args:
        shots: folder that stage shots made, with the stills.
        clips: ids of shots.
        count: of frames of each; all, where a clip has fewer.

    Raises:
        FileNotFoundError, ValueError: as `stills.read`.
    """
    waiting = iter(clips)
    while some := list(islice(waiting, _AT_ONCE)):
        yield {clip: _some(pictures, count) for clip, pictures in stills.read(shots, some).items()}


def _some(pictures: Sequence[bytes], count: int) -> Frames | None:
    # stage shots takes stills from the middles of equal parts of the clip
    placed = [(picture, (2 * at + 1) / (2 * len(pictures))) for at, picture in enumerate(pictures)]
    chosen = spread(placed, count)
    if not chosen or not all(is_whole_jpeg(picture) for picture, _ in chosen):
        return None
    return Frames(tuple(picture for picture, _ in chosen), tuple(place for _, place in chosen))


def spread(pictures: Sequence[T], count: int) -> list[T]:
    """Return `count` of the pictures, in the middle of as many equal parts of them; all, if they are fewer."""
    count = min(count, len(pictures))
    return [pictures[(2 * place + 1) * len(pictures) // (2 * count)] for place in range(count)]


def is_whole_jpeg(picture: bytes) -> bool:
    """Say whether bytes begin and end as a JPEG does. Nothing is decoded."""
    return len(picture) > 4 and picture.startswith(b"\xff\xd8\xff") and picture.endswith(b"\xff\xd9")


def digest(pictures: Sequence[bytes]) -> str:
    """Return the hash of pictures and of their order."""
    found = hashlib.sha256()
    for picture in pictures:
        found.update(len(picture).to_bytes(8, "little") + picture)
    return found.hexdigest()
