"""Open a raw video by PyAV: what it is, its frames, its pictures for the analysis. Runs in the sandbox only.

Opening rules (measured with av 18.1): the container format is sniffed and named, because a text file called
x.mp4 can be a playlist that opens other files; `protocol_whitelist=none` does not stop that,
`format_whitelist` does; and `max_pixels` holds only when the codec is told as well as the container.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import wraps
from typing import Any, BinaryIO, NamedTuple, ParamSpec, cast

import av
import numpy as np

from tasks.decoding import packets, planes, tone
from tasks.decoding.limits import MIN_DECODED, DecodeBudget, Limits

_Parameters = ParamSpec("_Parameters")
_Answer = dict[str, Any]
# FFmpeg names some of these codecs after the library that decodes them
_DECODERS = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}
_MOV_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot"))
_ANALYSED_MICROSECONDS = "5000000"  # of the video, at its beginning, to find out what the streams are
_MAX_PIXEL_ASPECT = 8
_HEAD_BYTES = 2048
_FEW_REPEATED = 3  # frames without a later time than the one before, before a share of them means anything
_TOGETHER = 16  # pictures handed on at a time: decoding and analysing by turns empties each other's caches


class Refused(Exception):  # noqa: N818 (a verdict on the file, not a fault of ours)
    """This file is not used; carries the row's status and reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason

    def result(self) -> dict[str, Any]:
        return {"status": self.status, "reason": self.reason}


def answering(failure: str) -> Callable[[Callable[_Parameters, _Answer]], Callable[_Parameters, _Answer]]:
    """Let a function that reads a file answer with status and reason where that is refused, or FFmpeg gives it up.

    Args:
        failure: the reason of the latter; the status is failed. A lack of memory says nothing about the file.
    """

    def with_answers(read: Callable[_Parameters, _Answer]) -> Callable[_Parameters, _Answer]:
        @wraps(read)
        def answered(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Answer:
            try:
                return read(*args, **kwargs)
            except Refused as refused:
                return refused.result()
            except av.error.MemoryError:
                raise
            except av.error.FFmpegError:
                return {"status": "failed", "reason": failure}

        return answered

    return with_answers


class Opened(NamedTuple):
    """A container with the video stream that players show."""

    container: av.container.InputContainer
    stream: av.VideoStream
    codec: str
    size_bytes: int
    limits: Limits
    repairs: Sequence[str]
    """Of packets.REPAIRS, what `probe` found needful."""

    @property
    def time_base(self) -> Fraction:
        """Seconds of a tick."""
        assert self.stream.time_base is not None, "FFmpeg gives every stream of a file that it reads a time base"
        return self.stream.time_base


def sniff(head: bytes) -> str | None:
    """Return the container format that a file's first 2048 bytes show, None if it is none that we know."""
    if head[4:8] in _MOV_BOXES:
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] == b"FLV\x01":
        return "flv"
    return "mpegts" if packets.is_transport_stream(head) else None


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
def open_video(path: str, limits: Limits, repairs: Sequence[str] = ()) -> Iterator[Opened]:
    """Open a video under the rules above.

    Args:
        repairs: what `probe` said of it.
    Raises:
        Refused: it is no video, or not one that we decode.
    """
    with open_file(path, limits) as (file, size_bytes):
        format_name = sniff(file.read(_HEAD_BYTES))
        if format_name is None:
            raise Refused("rejected", "not_a_video")
        if format_name not in limits.formats:
            raise Refused("rejected", "format_not_allowed")
        file.seek(0)
        options = {
            "format_whitelist": ",".join(limits.formats),
            "protocol_whitelist": "none",
            "max_pixels": str(limits.max_pixels),
            # what is above FFmpeg's own limit it drops, or calls a lack of memory: ours is checked below
            "max_streams": str(4 * limits.max_streams),
            "probesize": str(limits.probe_bytes),
            "analyzeduration": _ANALYSED_MICROSECONDS,
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
            if len(container.streams) > limits.max_streams:
                raise Refused("rejected", "too_many_streams")
            stream = packets.video_stream(container)
            if stream is None:
                raise Refused("rejected", "no_video_stream")
            name = stream.codec_context.name if stream.codec_context else ""  # none: FFmpeg has no decoder for it
            codec = _DECODERS.get(name, name)
            if codec not in limits.codecs:
                raise Refused("rejected", "codec_not_allowed")
            if stream.width * stream.height > limits.max_pixels or max(stream.width, stream.height) > limits.max_side:
                raise Refused("rejected", "too_many_pixels")
            stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
            stream.codec_context.thread_count = 1
            stream.codec_context.thread_type = "NONE"
            stream.codec_context.copy_opaque = True  # a frame carries what its packet was given: its order
            yield Opened(container, stream, codec, size_bytes, limits, repairs)


def may_jump(opened: Opened) -> bool:
    """Say whether a clock that goes ahead by seconds has started again: see packets.Clock."""
    return opened.container.format.name in packets.MAY_JUMP


def claimed_frames(opened: Opened) -> int:
    """Return how many frames the file says that it shows, 0 if it does not say."""
    if "mov" not in opened.container.format.name:
        return opened.stream.frames
    # the index has what edit lists leave, the header what they leave out too
    return sum(not entry.is_discard for entry in opened.stream.index_entries)


def decoded(
    opened: Opened, marks: packets.Marks | None = None, start_pts: int | None = None
) -> Iterator[av.VideoFrame]:
    """Give the frames in the order in which they are shown, each with a later pts than the one before.

    A frame's pts is its time on a clock that never starts again. One that has no later time than the frame before it
    is left out, as players do.

    Args:
        marks: takes what is noticed of the frames.
        start_pts: frames before it need not be given, where the container is read from its beginning.
    Raises:
        Refused: too many frames or bytes, or too many that do not decode, or too many times that do not rise.
    """
    spent = DecodeBudget(opened.limits, opened.size_bytes)
    is_by_order = packets.FRAME_ORDER in opened.repairs
    clock = packets.Clock(opened.time_base, may_jump(opened)) if packets.CLOCK_RESTARTS in opened.repairs else None
    depth = opened.stream.codec_context.reorder_depth
    timeline = packets.Timeline(opened.codec, depth, is_by_order, packets.Marks() if marks is None else marks)
    last: int | None = None
    frames, repeated = 0, 0
    for given in packets.shown(opened.container, opened.stream, is_by_order, clock, start_pts):
        timeline.packet(given)
        try:
            decoded_now = given.packet.decode()
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError:
            timeline.broken(given)
            if reason := spent.packet(is_broken=True):
                raise Refused("failed", reason) from None
            continue
        spent.packet(is_broken=False)
        for frame in decoded_now:
            if reason := spent.frame(sum(plane.buffer_size for plane in frame.planes)):
                raise Refused("rejected", reason)
            time = timeline.frame(frame)
            if time is None:
                continue
            frames += 1
            if last is not None and time <= last:
                repeated += 1
                if repeated > max(_FEW_REPEATED, (1 - MIN_DECODED) * frames):
                    raise Refused("failed", "bad_timestamps")
                continue
            frame.pts = last = time
            yield frame


def check_decoded(opened: Opened, frames: int, claimed: int) -> None:
    """Refuse a video of which far fewer frames decode than it claims to have."""
    if not frames:
        raise Refused("failed", "decode_error")
    if frames < MIN_DECODED * max(claimed, claimed_frames(opened)):
        raise Refused("failed", "truncated")


def frame_rate(opened: Opened) -> Fraction:
    """Return the frames per second that the header says, 25 where it does not; `probe` says what they are."""
    return opened.stream.average_rate or opened.stream.guessed_rate or Fraction(25)


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame at the size of the analysis: upright, square pixels, one field if interlaced, uint8."""

    index: int
    """Its place in what is analysed, from 0."""
    pts: int
    duration: int
    """Ticks until the next frame, as the file says; 0 if it does not."""
    bgr: np.ndarray
    """(height, width, 3)."""
    hsv: np.ndarray
    """(height, width, 3), OpenCV's: hue 0-179."""
    luma: np.ndarray
    """(height, width), as coded: black is 16 in most videos, and 0 in those of full range."""
    grey: np.ndarray | None
    """(height, width), 0 black to 255 white, without aliasing; where `is_measured`, and before, and first of all."""
    is_measured: bool
    """To be measured together with the frame before."""
    still: np.ndarray | None = None
    """(height, width, 3), `bgr` without aliasing; where `grey` is, which it is made of."""


def pictures(
    opened: Opened,
    frames: Iterator[av.VideoFrame],
    analysis_pixels: int,
    measure_every: int,
) -> Iterator[Picture]:
    """Give every frame small, in the order in which they are shown.

    The size is `planes.analysis_size` of the first frame; later frames of another size are brought to the same.
    Black bars are left in.

    Args:
        frames: `decoded`, or part of them; none is decoded yet.
        measure_every: on every so many frames, and the one before each, `grey` and `still` are made too.
    Raises:
        Refused: as `decoded`, or a shape of pixels that nothing can be shown with.
    """
    _decode_lightly(opened.stream, analysis_pixels)
    how = size = None
    waiting: list[Picture] = []
    for index, frame in enumerate(frames):
        if how is None or size is None:
            how = shown(opened, frame)
            size = planes.analysis_size(how.width, how.height, analysis_pixels)
        is_measured = index > 0 and index % measure_every == 0
        is_fine = index % measure_every == 0 or (index + 1) % measure_every == 0
        small = planes.shrink(planes.one_field(frame), how, *size, is_fine)
        given = small.bgr, small.hsv, small.luma, small.grey, is_measured, small.still
        waiting.append(Picture(index, cast(int, frame.pts), frame.duration or 0, *given))
        if len(waiting) == _TOGETHER:
            yield from waiting
            waiting.clear()
    yield from waiting


def _decode_lightly(stream: av.VideoStream, analysis_pixels: int) -> None:
    """Leave out the deblocking of frames that no other frame is predicted from, where a shrunken picture hides it.

    That spares 5 to 8 % of decoding H.264. It must come before the first frame is decoded.
    """
    if max(stream.width, stream.height) >= 2 * analysis_pixels:
        stream.codec_context.options = {**stream.codec_context.options, "skip_loop_filter": "noref"}


def shown(opened: Opened, frame: av.VideoFrame) -> planes.Shown:
    """Return how the stream's pictures are to be shown, from its first frame.

    Raises:
        Refused: its pixels are more than 8 times as wide as high, or the reverse; or it is of high dynamic range and
            its colours are by a matrix that is not known here.
    """
    aspect = opened.stream.sample_aspect_ratio or Fraction(1)
    if not 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT:
        raise Refused("rejected", "pixel_aspect")
    if frame.color_trc not in (tone.PQ, tone.HLG):
        return planes.shown(frame, aspect)
    if not planes.is_matrix_known(frame):
        raise Refused("rejected", "hdr_matrix")
    return planes.shown(frame, aspect, frame.color_trc)
