"""Decode all frames of a short video, as it is shown, and say how it was compressed. Runs in the sandbox only."""

import re
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from tasks.decoding import clip_frames, decode
from tasks.decoding.limits import Limits

_X264 = re.compile(rb"x264 - core [^\x00]{0,400}? options: [^\x00]{0,2000}?\bcrf=(\d{1,3}(?:\.\d{1,3})?)\b")
"""What libx264 writes about itself into the first packet (an SEI message of the user's, not registered)."""
_PACKETS = 4  # among which the first of the picture is


@decode.answering("decode_error")
def whole_video(
    path: str, limits: Limits, frames: int, height: int, width: int, repairs: Sequence[str] = ()
) -> dict[str, Any]:
    """Decode every frame of a video: upright, square pixels, one field if interlaced.

    Args:
        frames: how many `probe.probe` counted: where more decode, the others are left out.
        height, width: as `probe.probe` said: the picture as it is shown.
        repairs: what `probe.probe` said of it.

    Returns:
        `frames`: uint8 (T, height, width, 3) RGB, T at most `frames`; `crf`: libx264's rate factor, null where the file
        does not say. Or status failed or rejected with a reason.
    """
    with decode.open_video(path, limits) as opened:
        crf = _crf(opened)
    with decode.open_video(path, limits, repairs) as opened:
        taken = _all(opened, frames, height, width)
        decode.check_decoded(opened, len(taken), frames)
    return {"status": "ok", "reason": None, "frames": np.stack(taken), "crf": crf}


def _all(opened: decode.Opened, frames: int, height: int, width: int) -> list[np.ndarray]:
    taken: list[np.ndarray] = []
    size = None
    for frame in decode.decoded(opened):
        if size is None:
            size = frame.width, frame.height
            how = decode.shown(opened, frame)
            cut = clip_frames.cut_of(how.width, how.height, height, width)
        if (frame.width, frame.height) != size:
            raise decode.Refused("rejected", "size_changes")
        taken.append(cut.of(clip_frames.upright(frame, how, cut)))
        if len(taken) == frames:
            break
    return taken


def _crf(opened: decode.Opened) -> float | None:
    """Return the rate factor that libx264 says it was given."""
    if opened.codec != "h264":
        return None
    for number, packet in enumerate(opened.container.demux(opened.stream)):
        if found := _X264.search(bytes(cast(Any, packet))):
            return float(found[1])
        if number + 1 >= _PACKETS:
            break
    return None
