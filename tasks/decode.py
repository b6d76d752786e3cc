"""Open a raw video by PyAV: what it is, its frames, the frames of a clip. Runs behind the fence only.

Opening rules (measured with av 18.1): the container format is sniffed and named, because a text file called
x.mp4 can be a playlist that opens other files; `protocol_whitelist=none` does not stop that,
`format_whitelist` does; and `max_pixels` holds only when the codec is told as well as the container.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

import av
import numpy as np

FORMATS = ("mov", "matroska", "avi", "mpegts", "flv")
CODECS = frozenset(("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores"))
# FFmpeg names some of these codecs after the library that decodes them
_DECODERS = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}
_MOV_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot"))
_MIN_DECODED = 0.9  # share of the claimed frames below which a file counts as truncated
_MAX_BROKEN = 0.1  # share of packets that may fail to decode


class Limits(Protocol):
    """What these functions need of the fence's limits."""

    max_size_bytes: int
    max_pixels: int
    max_frames: int


class Refused(Exception):  # noqa: N818 (a verdict on the file, not a fault of ours)
    """This file is not used; carries the row's status and reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason

    def result(self) -> dict[str, Any]:
        return {"status": self.status, "reason": self.reason}


class Opened(NamedTuple):
    """A container with its first video stream."""

    container: av.container.InputContainer
    stream: av.VideoStream
    codec: str
    max_frames: int


def sniff(head: bytes) -> str | None:
    """Return the container format that a file's first 512 bytes show, None if it is none of FORMATS."""
    if head[4:8] in _MOV_BOXES:
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return "mpegts"
    return "flv" if head[:4] == b"FLV\x01" else None


@contextmanager
def open_file(path: str, limits: Limits) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file, not through a link, and give it with its size in bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("rejected", "not_a_file")
        if status.st_size == 0:
            raise Refused("rejected", "empty_file")
        if status.st_size > limits.max_size_bytes:
            raise Refused("rejected", "too_many_bytes")
        yield file, status.st_size


@contextmanager
def open_video(path: str, limits: Limits) -> Iterator[Opened]:
    """Open a video under the rules above.

    Raises:
        Refused: it is no video, or not one that we decode.
    """
    with open_file(path, limits) as (file, _):
        format_name = sniff(file.read(512))
        if format_name is None:
            raise Refused("rejected", "not_a_video")
        file.seek(0)
        options = {
            "format_whitelist": ",".join(FORMATS),
            "protocol_whitelist": "none",
            "max_pixels": str(limits.max_pixels),
            "max_streams": "16",
        }
        try:
            container = av.open(
                file, "r", format=format_name, options=options, timeout=(5, 5), metadata_errors="replace"
            )
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError as error:
            raise Refused("failed", "unreadable") from error
        with container:
            if not container.streams.video:
                raise Refused("rejected", "no_video_stream")
            stream = container.streams.video[0]
            name = stream.codec_context.name if stream.codec_context else ""  # none: FFmpeg has no decoder for it
            codec = _DECODERS.get(name, name)
            if codec not in CODECS:
                raise Refused("rejected", "codec_not_allowed")
            if stream.width * stream.height > limits.max_pixels:
                raise Refused("rejected", "too_many_pixels")
            stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
            stream.codec_context.thread_count = 1
            stream.codec_context.thread_type = "NONE"
            yield Opened(container, stream, codec, limits.max_frames)


def probe(path: str, limits: Limits) -> dict[str, Any]:
    """Say what a video is: codec, width, height, fps, seconds, frames.

    Every packet is read (none decoded), so the length is what the file holds, not what its header claims; a
    file that breaks off is noticed here. Rotation side data is not applied: width and height are as coded.
    """
    try:
        with open_video(path, limits) as opened:
            return {"status": "ok", "reason": None, **_measure(opened)}
    except Refused as refused:
        return refused.result()
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError:
        return {"status": "failed", "reason": "unreadable"}


def _measure(opened: Opened) -> dict[str, Any]:
    stream = opened.stream
    frames, first, last = 0, None, 0
    for packet in opened.container.demux(stream):
        time = packet.pts if packet.pts is not None else packet.dts
        if not packet.size or time is None:
            continue
        frames += 1
        if frames > opened.max_frames:
            raise Refused("rejected", "too_many_frames")
        first = time if first is None else min(first, time)
        last = max(last, time + (packet.duration or 0))
    if frames < _MIN_DECODED * stream.frames:
        raise Refused("failed", "truncated")
    if first is None or stream.width == 0 or stream.height == 0:
        raise Refused("failed", "no_frames")
    assert stream.time_base is not None, "FFmpeg gives every stream of a file that it reads a time base"
    seconds = float((last - first) * stream.time_base)
    rate = stream.average_rate or stream.guessed_rate
    fps = float(rate) if rate else frames / seconds if seconds > 0 else 0.0
    return {
        "codec": opened.codec,
        "width": stream.width,
        "height": stream.height,
        "fps": fps,
        "seconds": seconds,
        "frames": frames,
    }


def decoded(opened: Opened) -> Iterator[av.VideoFrame]:
    """Give the frames in the order in which they are shown, each with a later pts than the one before.

    Raises:
        Refused: too many frames, or too many that do not decode, or times that do not rise.
    """
    packets = broken = count = 0
    last = None
    for packet in opened.container.demux(opened.stream):
        packets += 1
        try:
            frames = packet.decode()
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError:
            broken += 1
            if broken > max(1, _MAX_BROKEN * (packets + 10)):
                raise Refused("failed", "decode_error") from None
            continue
        for frame in frames:
            count += 1
            if count > opened.max_frames:
                raise Refused("rejected", "too_many_frames")
            if frame.pts is None or (last is not None and frame.pts <= last):
                raise Refused("failed", "bad_timestamps")
            last = frame.pts
            yield frame


def check_decoded(opened: Opened, frames: int, claimed: int) -> None:
    """Refuse a video of which far fewer frames decode than it claims to have."""
    if not frames:
        raise Refused("failed", "decode_error")
    if frames < _MIN_DECODED * max(claimed, opened.stream.frames):
        raise Refused("failed", "truncated")


def frame_rate(opened: Opened) -> Fraction:
    """Return the frames per second, 25 where the file does not say."""
    return opened.stream.average_rate or opened.stream.guessed_rate or Fraction(25)


def clip_frames(
    path: str,
    limits: Limits,
    start_pts: int,
    end_pts: int,
    frames: int,
    stride_frames: int,
    height: int,
    width: int,
) -> dict[str, Any]:
    """Decode a clip's frames at the size that the model sees.

    Args:
        start_pts: time of the clip's first frame.
        end_pts: time of the frame after its last.
        frames: how many to take, every `stride_frames`-th from the first.
        height: the picture is scaled to cover height x width (area interpolation) and cut out at its centre.

    Returns:
        `frames`: uint8 (frames, height, width, 3) RGB; `crop_top`, `crop_left`: pixels of the scaled picture.
        Or status failed with reason frame_not_found, too_few_frames, decode_error ...
    """
    try:
        with open_video(path, limits) as opened:
            taken, top, left = _take(opened, start_pts, end_pts, frames, stride_frames, height, width)
    except Refused as refused:
        return refused.result()
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError:
        return {"status": "failed", "reason": "decode_error"}
    return {"status": "ok", "reason": None, "frames": np.stack(taken), "crop_top": top, "crop_left": left}


def _take(
    opened: Opened, start_pts: int, end_pts: int, frames: int, stride_frames: int, height: int, width: int
) -> tuple[list[np.ndarray], int, int]:
    source_height, source_width = opened.stream.height, opened.stream.width
    scale = max(height / source_height, width / source_width)
    scaled_height, scaled_width = (
        max(height, round(source_height * scale)),
        max(width, round(source_width * scale)),
    )
    top, left = (scaled_height - height) // 2, (scaled_width - width) // 2
    taken: list[np.ndarray] = []
    position = 0
    for frame in _decoded_from(opened, start_pts):
        assert frame.pts is not None, "decoded refuses frames without a time"
        if frame.pts < start_pts:
            continue
        if position == 0 and frame.pts != start_pts:
            raise Refused("failed", "frame_not_found")
        if frame.pts >= end_pts:
            break
        if position % stride_frames == 0:
            # threads=1: by default a pool of threads is made for every single picture
            scaled = frame.reformat(scaled_width, scaled_height, "rgb24", interpolation="AREA", threads=1)
            picture = scaled.to_ndarray()
            taken.append(picture[top : top + height, left : left + width])
        if len(taken) == frames:
            return taken, top, left
        position += 1
    raise Refused("failed", "too_few_frames")


def _decoded_from(opened: Opened, start_pts: int) -> Iterator[av.VideoFrame]:
    """Give frames from `start_pts` or earlier on."""
    # FFmpeg seeks to the key frame before; what lies between it and the start must be decoded and thrown away
    opened.container.seek(start_pts, stream=opened.stream, backward=True)
    frames = decoded(opened)
    first = next(frames, None)
    # decoded refuses frames without a time; a poor index (mpegts, flv) is read from the beginning
    if first is None or cast(int, first.pts) > start_pts:
        opened.container.seek(opened.stream.start_time or 0, stream=opened.stream, backward=True)
        yield from decoded(opened)
        return
    yield first
    yield from frames
