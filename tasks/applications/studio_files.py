"""Files of `stiv studio`: what people gave it, by the hash of its bytes, and small pictures of that and of videos."""

import io
import re
from hashlib import sha256
from pathlib import Path
from typing import Final

import av
from PIL import Image

from tasks.applications import given
from tasks.sandbox.pool import Sandbox
from tasks.storage import atomic

MOST_BYTES: Final = 200 * 2**20
"""Of a file that is given."""
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
_SIDE = 96  # of the small picture of a given file, pixels
_STRIP_SIDE = 160  # of each picture of a video's strip


def keep(folder: Path, name: str, content: bytes) -> Path:
    """Return where a given file lies: under its hash, so that the same one lies there once.

    Args:
        folder: that such files go to.
        name: of the file where it came from, of which the suffix is kept.
        content: its bytes, not looked at.

    Raises:
        ValueError: it is larger than what is kept.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"{name} has {len(content)} bytes, but {MOST_BYTES} at most are taken: cut or scale it first")
    suffix = Path(name).suffix.lower()
    path = folder / f"{sha256(content).hexdigest()}{suffix if _SUFFIX.fullmatch(suffix) else ''}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.atomic_write(path) as made:
            made.write_bytes(content)
    return path


def thumbnail(sandbox: Sandbox, option: str, file: Path, folder: Path) -> Path:
    """Return a small picture of a given picture, or of the last frame of a given video; made once.

    Args:
        option: that names the file, for messages; --video takes a video.
        folder: that small pictures go to.

    Raises:
        ValueError: it cannot be opened, with the reason and the remedy.
    """
    path = folder / f"{atomic.sha256_file(file)}.jpg"
    if not path.exists():
        if option == "--video":
            video = given.open_video(sandbox, option, file)
            found = given.last_frames(sandbox, video, 1, 1, _SIDE, _SIDE)
        else:
            found = given.read_picture(sandbox, option, file, _SIDE, _SIDE)
        _write(path, Image.fromarray(found.frames[0]))
    return path


def strip(video: Path, path: Path) -> Path:
    """Write the first, the middle and the last frame of a video of ours beside each other, and return where.

    Args:
        path: of the picture.
    """
    with av.open(str(video)) as container:
        count = container.streams.video[0].frames
        places = {0, count // 2, count - 1}
        shown = [
            frame.to_image() for place, frame in enumerate(container.decode(video=0)) if place in places
        ]  # one by one: a long video does not fit into memory
    for picture in shown:
        picture.thumbnail((_STRIP_SIDE, _STRIP_SIDE))
    width, height = shown[0].size
    joined = Image.new("RGB", (len(shown) * width + 2 * (len(shown) - 1), height), "white")
    for place, picture in enumerate(shown):
        joined.paste(picture, (place * (width + 2), 0))
    _write(path, joined)
    return path


def _write(path: Path, picture: Image.Image) -> None:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=88)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_write(path) as made:
        made.write_bytes(content.getvalue())
