"""Frames to a file that browsers play, and back from such a file of ours."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream

CODEC: Final = "libx264"
CRF = 12  # small pictures: nearly without loss
PRESET: Final = "veryfast"
THREADS = 1
"""Of the encoder: slices, and so bytes, depend on them, and by default they are those of the machine."""
CPU_INDEPENDENT = 1
"""libx264 computes the same on every CPU. Otherwise its code for AVX-512 reads memory that nobody wrote (macroblock
tree), and the first video of a process has other bytes each time."""


def write_video(path: Path, frames_THWC: np.ndarray, fps: int | Fraction, comment: str | None = None) -> None:
    """Write uint8 RGB frames (T, H, W, 3), of even height and width, as H.264, `fps` of them per second.

    Args:
        comment: text that the file carries about itself.
    """
    _, height, width, _ = frames_THWC.shape
    write_windows(path, [frames_THWC], height, width, fps, comment)


def write_windows(
    path: Path, windows: Iterable[np.ndarray], height: int, width: int, fps: int | Fraction, comment: str | None = None
) -> None:
    """Write a video as `write_video` does, whose frames come in windows, of which one is held at a time.

    Args:
        windows: uint8 RGB frames (T, H, W, 3), in their order.
        height: of a frame in pixels, even, as `width`.
    """
    with av.open(str(path), "w", format="mp4") as container:
        if comment is not None:
            container.metadata["comment"] = comment
        stream = add_stream(container, fps, height, width, CRF)
        for frames_THWC in windows:
            for frame in frames_THWC:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def add_stream(container: OutputContainer, fps: int | Fraction, height: int, width: int, crf: int) -> VideoStream:
    """Return a new stream of a file for H.264 whose bytes depend on the pictures alone, not on the machine.

    Args:
        height: of a picture in pixels, even, as `width`.
        crf: libx264's rate factor.
    """
    options = {"crf": str(crf), "preset": PRESET, "x264-params": f"cpu-independent={CPU_INDEPENDENT}"}
    stream = container.add_stream(CODEC, rate=Fraction(fps), options=options)
    stream.codec_context.thread_count = THREADS
    stream.height, stream.width = height, width
    stream.pix_fmt = "yuv420p"
    return stream


def read_video(path: Path) -> np.ndarray:
    """Return the frames of a file that `write_video` wrote, uint8 RGB (T, H, W, 3).

    Raises:
        FileNotFoundError: it is not there.
        av.FFmpegError, ValueError: it is no such file.
    """
    with av.open(str(path)) as container:
        # threads=1: by default a pool of threads is made for every single picture
        pictures = [frame.reformat(format="rgb24", threads=1) for frame in container.decode(video=0)]
        return np.stack([picture.to_ndarray() for picture in pictures])
