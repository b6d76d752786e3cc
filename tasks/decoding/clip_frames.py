"""Decode the frames of one clip at the size that the model sees. Runs in the sandbox only."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple, cast

import av
import numpy as np

from tasks.decoding import decode, packets, planes
from tasks.decoding.limits import Limits

# before the start, of the key frame that is looked for: in mpegts it is not found by its own time, as FFmpeg looks
# for one whose decoding time, a little earlier, is not later; and some frames are shown before the key frame that they
# are decoded after
_BACK_SECONDS = (0, 1, 8)


class Cut(NamedTuple):
    """How an upright picture is scaled and cut, pixels."""

    scaled_width: int
    scaled_height: int
    top: int
    left: int
    height: int
    width: int

    def of(self, picture: np.ndarray) -> np.ndarray:
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]


@decode.answering("decode_error")
def clip_frames(
    path: str,
    limits: Limits,
    start_pts: int,
    end_pts: int,
    frames: int,
    stride_frames: int,
    height: int,
    width: int,
    repairs: Sequence[str] = (),
) -> dict[str, Any]:
    """Decode a clip's frames at the size that the model sees: upright, square pixels, one field if interlaced.

    Colours come out by the video's own matrix and range (BT.601 where it does not say); high dynamic range by
    `tasks/decoding/tone.py`.

    Args:
        start_pts: time of the clip's first frame.
        end_pts: time of the frame after its last.
        frames: how many to take, every `stride_frames`-th from the first.
        height: the picture is scaled to cover height x width (area interpolation) and cut out at its centre.
        repairs: what `probe.probe` said of the video.

    Returns:
        `frames`: uint8 (frames, height, width, 3) RGB; `crop_top`, `crop_left`: pixels of the scaled picture.
        Or status failed with reason frame_not_found, too_few_frames, damaged, decode_error ..., or rejected with
        size_changes.
    """
    with decode.open_video(path, limits, repairs) as opened:
        marks = packets.Marks()
        decoding = decoded_from(opened, start_pts, marks)
        wanted = _between(decoding, start_pts, end_pts)
        taken, cut, times = _take(opened, wanted, frames, stride_frames, height, width)
        _refuse_damage(opened, decoding, times, marks)
    return {"status": "ok", "reason": None, "frames": np.stack(taken), "crop_top": cut.top, "crop_left": cut.left}


def _take(
    opened: decode.Opened, given: Iterator[av.VideoFrame], frames: int, stride_frames: int, height: int, width: int
) -> tuple[list[np.ndarray], Cut, list[int]]:
    taken: list[np.ndarray] = []
    times: list[int] = []
    size = how = cut = None
    for position, frame in enumerate(given):
        if how is None or cut is None:
            size = frame.width, frame.height
            how = decode.shown(opened, frame)
            cut = cut_of(how.width, how.height, height, width)
        if (frame.width, frame.height) != size:
            raise decode.Refused("rejected", "size_changes")
        times.append(cast(int, frame.pts))  # decoded gives no frame without a time
        if position % stride_frames == 0:
            taken.append(cut.of(upright(frame, how, cut)))
        if len(taken) == frames:
            return taken, cut, times
    raise decode.Refused("failed", "too_few_frames")


def cut_of(shown_width: int, shown_height: int, height: int, width: int) -> Cut:
    """Return how an upright picture is scaled to cover height x width, and cut out at its centre: never stretched."""
    scale = max(height / shown_height, width / shown_width)
    scaled_height, scaled_width = max(height, round(shown_height * scale)), max(width, round(shown_width * scale))
    return Cut(scaled_width, scaled_height, (scaled_height - height) // 2, (scaled_width - width) // 2, height, width)


def upright(frame: av.VideoFrame, how: planes.Shown, cut: Cut) -> np.ndarray:
    """Return a frame scaled and upright, not cut yet: uint8 RGB (scaled_height, scaled_width, 3)."""
    size = how.as_coded(cut.scaled_width, cut.scaled_height)
    if how.hdr:
        return how.upright(planes.to_sdr(planes.one_field(frame), size, how.hdr))
    return how.upright(scaled(planes.one_field(frame), *size))


def scaled(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """Return a frame at another size, uint8 RGB (height, width, 3), by area interpolation."""
    # threads=1: by default a pool of threads is made for every single picture
    return frame.reformat(width, height, "rgb24", interpolation="AREA", threads=1).to_ndarray()


def _between(frames: Iterator[av.VideoFrame], start_pts: int, end_pts: int) -> Iterator[av.VideoFrame]:
    """Give the frames from exactly `start_pts` up to `end_pts`."""
    is_begun = False
    for frame in frames:
        pts = cast(int, frame.pts)  # decoded gives no frame without a time
        if pts >= end_pts:
            return
        if not is_begun and pts > start_pts:
            raise decode.Refused("failed", "frame_not_found")
        if pts >= start_pts:
            is_begun = True
            yield frame


def _refuse_damage(
    opened: decode.Opened, decoding: Iterator[av.VideoFrame], times: list[int], marks: packets.Marks
) -> None:
    """Refuse a clip with a frame that does not decode cleanly, or follows one that did not.

    A frame that is shown after the clip may have been decoded before its end: some are looked at.
    """
    with suppress(decode.Refused, av.error.FFmpegError):
        for _ in islice(decoding, opened.stream.codec_context.reorder_depth):
            pass
    if not marks.damaged.isdisjoint(times):
        raise decode.Refused("failed", "damaged")


def decoded_from(opened: decode.Opened, start_pts: int, marks: packets.Marks) -> Iterator[av.VideoFrame]:
    """Give frames from `start_pts` or earlier on."""
    if packets.CLOCK_RESTARTS not in opened.repairs:
        for seconds in _BACK_SECONDS:
            # FFmpeg seeks to the key frame before; what lies between it and the start must be decoded and thrown away
            opened.container.seek(start_pts - round(seconds / opened.time_base), stream=opened.stream, backward=True)
            marks.clear()
            frames = decode.decoded(opened, marks)
            first = next(frames, None)
            if first is not None and cast(int, first.pts) <= start_pts:
                yield first
                yield from frames
                return
        opened.container.seek(min(0, opened.stream.start_time or 0), stream=opened.stream, backward=True)
        marks.clear()
    # a poor index (mpegts, flv), or a clock that has started again, by which nothing is found, not even the beginning
    # that a file stands at when it is opened: all is read, and decoded from the key frame before the start
    yield from decode.decoded(opened, marks, start_pts)
