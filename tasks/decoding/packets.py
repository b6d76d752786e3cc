"""Which of a container's packets are shown, and when: what is counted by probing, and what decoding tells times by.

A player shows the first stream that is a video and no cover, begins at a key frame, hides what an edit list hides, and
goes on where a clock starts again. So do `probe` and every decoding pass, all by `shown`.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import av
from av.stream import Disposition

CLOCK_RESTARTS, FRAME_ORDER, LATE_START, REPEATED_TIMES = (
    "clock_restarts",
    "frame_order",
    "late_start",
    "repeated_times",
)
REPAIRS = (CLOCK_RESTARTS, FRAME_ORDER, LATE_START, REPEATED_TIMES)
"""What is repaired as a file is read; `tasks/pages/reasons.py` says what each means."""

_DEFAULT_PIXELS = 5_000_000  # what the mark "default" of a stream counts as: the choice of the program ffmpeg
_BACK_SECONDS = Fraction(1, 10)  # a clock that goes back by more has started again, and ...
_AHEAD_SECONDS = 10  # ... in a broadcast or a stream, one that goes ahead by more: both as the program ffmpeg has it
MAY_JUMP = ("mpegts", "flv")
_MAY_LACK_TIMES = ("avi", "matroska", "flv")  # of presentation, where frames are coded in another order
_MAX_REORDER = 32  # frames that may be decoded before one that is shown earlier; of H.264 and HEVC 16
_HELD_PACKETS = 1000  # of one group of pictures, while a time is looked for
_ONE_FRAME_EACH = ("hevc", "av1", "vp9")  # codecs of which every packet gives a frame, and a lost one goes unsaid


def video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """Return the stream that is shown, None if there is none: a cover beside sound is no video.

    The choice of the program ffmpeg (fftools/ffmpeg_mux_init.c, map_auto_video): never an attached picture; one that
    can be decoded; then the largest, where the mark "default" counts for five million pixels; then the first.
    """
    cover = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]

    def rank(stream: av.VideoStream) -> tuple[bool, int]:
        if not stream.codec_context:
            return False, 0
        is_default = bool(stream.disposition & Disposition.default)
        return True, stream.width * stream.height + _DEFAULT_PIXELS * is_default

    return max(streams, key=rank, default=None)


def is_transport_stream(head: bytes) -> bool:
    """Say whether the head of a file, 2048 bytes of it, is of a transport stream, wherever in a packet it begins.

    Packets have 188 bytes, 192 on Blu-ray discs and in AVCHD cameras, 204 with error correction; one byte of each is
    0x47.
    """
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return True
    return any(
        all(head[at] == 0x47 for at in range(offset, 5 * size + offset, size))
        for size in (188, 192, 204)
        for offset in range(size)
        if len(head) >= 5 * size + offset
    )


class Shown(NamedTuple):
    """A packet whose frame is shown, or that others are predicted from; the last one has no bytes and no time."""

    packet: Any  # av.Packet[av.VideoStream]: generic to type checkers only
    order: int
    """Its place in the order of decoding."""
    time: int | None
    """When its frame is shown, in ticks of a clock that never starts again; null if the container does not say."""
    is_counted: bool
    """Its frame is shown: it is not hidden by an edit list, nor of the group of pictures before the first one."""
    is_restart: bool
    """The container's clock is another from here on."""


class Clock:
    """A stream's clock, made whole: what comes after a restart goes on where the clock had been.

    Args:
        tick: seconds of one.
        may_jump: a clock that goes ahead by more than ten seconds has started again too.
    """

    def __init__(self, tick: Fraction, may_jump: bool) -> None:
        self._back = int(_BACK_SECONDS / tick)
        self._ahead = int(_AHEAD_SECONDS / tick) if may_jump else None
        self._last: int | None = None
        self._lasts = 1
        self._offset = 0
        self.restarts = 0

    def offset(self, packet: Any) -> int:
        """Return what is added to the times of the next packet."""
        if packet.dts is None:
            return self._offset
        time = packet.dts
        if self._last is not None:
            step = time - self._last
            if step < -self._back or (self._ahead is not None and step > self._ahead):
                self._offset += self._lasts - step
                self.restarts += 1
            elif step > 0:
                self._lasts = step
        self._lasts = packet.duration or self._lasts
        self._last = time
        return self._offset


def shown(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    is_by_order: bool,
    clock: Clock | None,
    time: int | None = None,
) -> Iterator[Shown]:
    """Give the packets of a stream from where the container stands.

    Those before the first key frame are left out, as nothing can be made of them, unless there is no key frame at all;
    frames that are decoded after it and shown before do not count.

    Args:
        is_by_order: times are those of decoding, see `FrameOrder`.
        clock: of a file that is read from its beginning; none where its clock is known to be whole.
        time: begin at the last key frame that is not later.
    """
    given = _timed(container, stream, is_by_order, clock)
    if time is not None:
        given = _since(given, time)
    began: int | None = None
    for place, one in enumerate(given):
        if place == 0 and not is_by_order:
            began = one.time
        is_leading = began is not None and one.time is not None and one.time < began
        yield one._replace(is_counted=False) if is_leading else one


def _timed(
    container: av.container.InputContainer, stream: av.VideoStream, is_by_order: bool, clock: Clock | None
) -> Iterator[Shown]:
    for order, packet in _from_key(container, stream):
        if not packet.size:
            if packet.dts is None and packet.pts is None:  # the end; what repeats the frame before has no bytes either
                yield Shown(packet, order, None, False, False)
            continue
        before = clock.restarts if clock else 0
        offset = clock.offset(packet) if clock else 0
        time = packet.dts if is_by_order or packet.pts is None else packet.pts
        time = packet.pts if time is None else time
        is_restart = clock is not None and clock.restarts > before
        yield Shown(packet, order, None if time is None else time + offset, not packet.is_discard, is_restart)


def _from_key(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[tuple[int, Any]]:
    """Give packets with their places, from the first key frame on."""
    is_begun = False
    for place, packet in enumerate(container.demux(stream)):
        is_begun = is_begun or packet.is_keyframe
        if is_begun:
            yield place, packet
    if not is_begun:  # pictures are refreshed strip by strip, or the container marks no key frame
        container.seek(min(0, stream.start_time or 0), stream=stream, backward=True)
        yield from enumerate(container.demux(stream))


def _since(given: Iterator[Shown], time: int) -> Iterator[Shown]:
    held: list[Shown] = []
    for one in given:
        is_key = one.packet.is_keyframe and (one.time is None or one.time <= time)
        if is_key:
            held = []
        held.append(one)
        if (one.time is not None and one.time >= time) or len(held) >= _HELD_PACKETS:
            break
    yield from held
    yield from given


def is_in_decoding_order(format_name: str, reorder_depth: int, is_rising: bool) -> bool:
    """Say whether a container has only times of decoding, of a codec whose frames are shown in another order.

    Args:
        is_rising: no packet's time is earlier than that of the packet before.
    """
    return is_rising and reorder_depth > 0 and any(name in format_name for name in _MAY_LACK_TIMES)


class FrameOrder:
    """Times of frames in a container that has none for presentation (AVI): the k-th frame shown has the k-th time.

    Args:
        delay: frames that the decoder holds back.
    """

    def __init__(self, delay: int) -> None:
        self._delay = delay
        self._waiting: list[int] = []

    def packet(self, time: int) -> None:
        insort(self._waiting, time)

    def frame(self) -> int | None:
        """Return the next frame's time."""
        # a packet more than the decoder holds back has given no frame, and its time goes with it
        del self._waiting[: max(0, len(self._waiting) - 1 - self._delay)]
        return self._waiting.pop(0) if self._waiting else None

    def forget(self, time: int) -> None:
        """Take back a time whose packet does not decode."""
        self._waiting.remove(time)


@dataclass
class Marks:
    """What a decoding pass notices of the frames that it gives."""

    damaged: set[int] = field(default_factory=set)
    """Times of frames that do not decode cleanly, or are predicted from such a one: up to the next key frame."""
    restarts: list[int] = field(default_factory=list)
    """Times from which the container's clock is another."""
    _faults: list[tuple[int, bool]] = field(default_factory=list)  # (order of decoding, its frame has been shown)
    _recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_MAX_REORDER))  # (order, time)

    def clear(self) -> None:
        """Forget all: decoding begins again elsewhere."""
        for noted in (self.damaged, self.restarts, self._faults, self._recent):
            noted.clear()

    def fault(self, order: int, is_shown: bool = False) -> None:
        """Note that a packet does not decode cleanly."""
        self._faults.append((order, is_shown))
        # of those shown already, the ones that were decoded after it
        self.damaged.update(time for other, time in self._recent if other >= order)

    def frame(self, order: int, time: int, is_clean_key: bool) -> None:
        """Note a frame that is shown."""
        if is_clean_key:
            # what is decoded after a key frame and shown before it, no later frame is predicted from
            self._faults = [fault for fault in self._faults if fault[0] > order and not fault[1]]
        self._recent.append((order, time))
        if any(fault <= order for fault, _ in self._faults):
            self.damaged.add(time)


class Timeline:
    """The times of the frames of one decoding pass, and what is noticed of them.

    Args:
        reorder_depth: frames that the decoder holds back.
        is_by_order: the container has no times of presentation.
        marks: takes what is noticed.
    """

    def __init__(self, codec: str, reorder_depth: int, is_by_order: bool, marks: Marks) -> None:
        self._marks = marks
        self._by_order = FrameOrder(reorder_depth) if is_by_order else None
        self._given: dict[int, tuple[int | None, bool]] = {}  # order of decoding: (time, is counted)
        self._gives_each = codec in _ONE_FRAME_EACH
        self._restart: int | None = None

    def packet(self, given: Shown) -> None:
        """Note a packet that goes to the decoder."""
        if not given.packet.size:
            return
        given.packet.opaque = given.order
        self._given[given.order] = given.time, given.is_counted
        if self._by_order and given.time is not None:
            self._by_order.packet(given.time)
        if given.packet.is_corrupt:
            self._marks.fault(given.order)
        if given.is_restart:
            self._restart = given.order
        if len(self._given) > _MAX_REORDER:
            del self._given[next(iter(self._given))]

    def broken(self, given: Shown) -> None:
        """Note that a packet does not decode."""
        self._marks.fault(given.order)
        self._given.pop(given.order, None)
        if self._by_order and given.time is not None:
            self._by_order.forget(given.time)

    def frame(self, frame: av.VideoFrame) -> int | None:
        """Return when the next frame is shown, null if it is not."""
        order = frame.opaque if isinstance(frame.opaque, int) else -1
        time, is_counted = self._given.pop(order, (frame.pts, True))
        if self._by_order:
            time = self._by_order.frame()
        if frame.is_corrupt:
            self._marks.fault(order, is_shown=True)
        if time is None or not is_counted:
            return None
        if self._gives_each:
            for other in [other for other, (due, counts) in self._given.items() if counts and due and due < time]:
                del self._given[other]
                self._marks.fault(other)
        if self._restart is not None and order >= self._restart:
            self._restart = None
            self._marks.restarts.append(time)
        self._marks.frame(order, time, bool(frame.key_frame) and not frame.is_corrupt)
        return time
