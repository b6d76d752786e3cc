"""A shot as a small MP4 that every browser plays, made of its decoded frames: nobody's player opens the raw video."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from stiv_model.encoders.video_file import write_video
from tasks.sandbox.pool import Sandbox
from tasks.storage import fields, tables

_FPS = 12  # at most
_MAX_SECONDS = 20
_SIDE = 480  # the longer one, pixels


@fields.columns_of(tables.SHOTS)
class Piece(NamedTuple):
    """Which frames of its video a shot is; a row of CLIPS has the same."""

    start_pts: int
    end_pts: int
    start: float
    end: float
    frames: int
    width: int
    height: int


def preview(shot: Piece, path: Path, sandbox: Sandbox) -> bytes:
    """Return the shot's first seconds as MP4.

    Args:
        shot: whose frames are shown.
        path: of the raw video.

    Raises:
        ValueError: the frames cannot be had; the message is the reason code.
    """
    seconds = shot.end - shot.start
    stride = max(1, round(shot.frames / seconds / _FPS))
    fps = shot.frames / seconds / stride
    scale = _SIDE / max(shot.width, shot.height)
    found = sandbox.call(
        "clip_frames",
        {
            "path": str(path),
            "start_pts": shot.start_pts,
            "end_pts": shot.end_pts,
            "frames": max(1, min((shot.frames - 1) // stride + 1, round(fps * _MAX_SECONDS))),
            "stride_frames": stride,
            "height": 2 * max(8, round(shot.height * scale / 2)),
            "width": 2 * max(8, round(shot.width * scale / 2)),
        },
    )
    if found["status"] != "ok":
        raise ValueError(found["reason"])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "preview.mp4"
        write_video(out, found["frames"], max(1, round(fps)))
        return out.read_bytes()
