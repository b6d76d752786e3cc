"""Say what a video is, by reading every packet of it and decoding its first frame. Runs in the sandbox only."""

from enum import IntEnum
from typing import Any

import av
from av.video.reformatter import ColorPrimaries, ColorTrc

from tasks.decoding import packets, planes
from tasks.decoding.decode import Opened, Refused, answering, claimed_frames, may_jump, open_video, shown
from tasks.decoding.limits import MIN_DECODED, Limits

_SAME_RATE = 0.02  # a rate that a header claims is that of the packets, if they differ by no more
_SAME_LENGTH = 1.5  # times what a frame is said to last, within which times in milliseconds may differ from it
_NOT_SAID = 2  # of colours, by ITU-T H.273


@answering("unreadable")
def probe(path: str, limits: Limits) -> dict[str, Any]:
    """Say what a video is: codec, width, height, fps, seconds, frames, repairs, and how its colours are coded.

    Every packet is read, so the length is what the file shows, not what its header claims; a file that breaks off is
    noticed here. Decoded is the first frame alone: width and height are of the picture as it is shown, upright and
    with square pixels.
    """
    with open_video(path, limits) as opened:
        return {"status": "ok", "reason": None, **_measure(opened)}


def _measure(opened: Opened) -> dict[str, Any]:
    stream = opened.stream
    clock = packets.Clock(opened.time_base, may_jump(opened))
    # times of decoding stand in for those of AVI, of which FFmpeg's parser makes up times of presentation
    is_avi = opened.container.format.name == "avi"
    times: set[int] = set()
    frames, lasts, is_rising, is_late = 0, 0, True, False
    last: int | None = None
    before: int | None = None
    how: planes.Shown | None = None
    colours: dict[str, str | None] = {}
    for place, (packet, order, time, is_counted, _) in enumerate(
        packets.shown(opened.container, stream, is_avi, clock)
    ):
        if how is None and (frame := _first_frame(packet)) is not None:
            how, colours = shown(opened, frame), _colours(frame)
        is_late = is_late or order > place or not (is_counted or packet.is_discard or not packet.size)
        if time is None or not is_counted:
            continue
        frames += 1
        if frames > opened.limits.max_frames:
            raise Refused("rejected", "too_many_frames")
        times.add(time)
        is_rising = is_rising and (before is None or time >= before)
        before = time
        if last is None or time > last:
            last, lasts = time, packet.duration or 0
    if frames < MIN_DECODED * claimed_frames(opened):
        raise Refused("failed", "truncated")
    if last is None:
        raise Refused("failed", "no_frames")
    if how is None:
        raise Refused("failed", "decode_error")
    first = min(times)
    seconds = float((last + _lasts(opened, times, lasts) - first) * opened.time_base)
    found = {
        packets.CLOCK_RESTARTS: clock.restarts > 0,
        packets.FRAME_ORDER: packets.is_in_decoding_order(
            opened.container.format.name, stream.codec_context.reorder_depth, is_rising
        ),
        packets.LATE_START: is_late,
        packets.REPEATED_TIMES: len(times) < frames,
    }
    return {
        "codec": opened.codec,
        "width": how.width,
        "height": how.height,
        "fps": _rate(opened, len(times), seconds),
        "seconds": seconds,
        "frames": len(times),
        "repairs": [repair for repair in packets.REPAIRS if found[repair]],
        **colours,
    }


def _lasts(opened: Opened, times: set[int], claimed: int) -> int:
    """Return how long the last frame is shown, in ticks: as claimed, or as long as the one before it.

    Only MP4 and MOV state each frame's own length. Elsewhere it is that of the header's rate, or none.
    """
    *_, before, last = sorted(times)[-2:] if len(times) > 1 else (max(times), max(times))
    if claimed and ("mov" in opened.container.format.name or last - before <= _SAME_LENGTH * claimed):
        return claimed
    return last - before or claimed


def _rate(opened: Opened, frames: int, seconds: float) -> float:
    """Return the frames per second: in the mean, or what the header says if that is about the same.

    Raises:
        Refused: it is outside the limits.
    """
    mean = frames / seconds if seconds > 0 else 0.0
    claimed = float(opened.stream.average_rate or opened.stream.guessed_rate or 0)
    rate = claimed if abs(claimed - mean) <= _SAME_RATE * mean or not mean else mean
    if not opened.limits.min_fps <= rate <= opened.limits.max_fps:
        raise Refused("rejected", "fps_out_of_range")
    return rate


def _first_frame(packet: Any) -> av.VideoFrame | None:
    """Return the frame that this packet gives, None if it gives none."""
    try:
        frames = packet.decode()
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError:
        return None  # `decoded` counts those
    return frames[0] if frames else None


def _colours(frame: av.VideoFrame) -> dict[str, str | None]:
    """Say by FFmpeg's names how colours are coded; null where neither frame nor container says."""
    return {
        "transfer": _name_of(ColorTrc, frame.color_trc),
        "primaries": _name_of(ColorPrimaries, frame.color_primaries),
        "colour_range": {1: "limited", 2: "full"}.get(frame.color_range),
    }


def _name_of(kind: type[IntEnum], value: int) -> str | None:
    if value not in list(kind) or value == _NOT_SAID:
        return None
    return kind(value).name.lower().replace("_", "-")
