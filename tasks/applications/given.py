"""Pictures and videos of people that a model is given, opened in the sandbox and brought to its size and stride.

They come out as the frames of a training clip do, by the same code: a picture is scaled to cover the video's size and
cut at its centre, never stretched; of a video every `stride_frames`-th frame is taken.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.pages.reasons import meaning_of
from tasks.sandbox.pool import Sandbox
from tasks.storage import atomic


class Given(NamedTuple):
    """Frames of a file."""

    option: str
    """That named the file, for messages."""
    file: Path
    sha256: str
    """Of its bytes."""
    frames: np.ndarray
    """uint8 RGB (T, H, W, 3), at the size of the model's videos."""
    places: tuple[int, ...]
    """Of the frames in the file, counted from 0."""
    shown: tuple[int, int]
    """Width and height of the file's pictures, upright and with square pixels."""
    fps: float | None
    """Frames per second of the file; None of a picture."""

    @property
    def used(self) -> tuple[int, int]:
        """Width and height of the middle part of its pictures that is used; all else is cut off."""
        height, width = self.frames.shape[1:3]
        scale = max(width / self.shown[0], height / self.shown[1])
        return min(self.shown[0], round(width / scale)), min(self.shown[1], round(height / scale))

    @property
    def told(self) -> str:
        """What was done to its pictures, in words."""
        size = "{} x {}".format
        height, width = self.frames.shape[1:3]
        cut = "all of it" if self.used == self.shown else f"its middle {size(*self.used)} pixels"
        return f"{self.option} {self.file} is {size(*self.shown)} pixels: {cut} at {size(width, height)}"


class Video(NamedTuple):
    """What a video file is, and when its frames are shown."""

    option: str
    file: Path
    probed: dict[str, Any]
    """As `probe.probe` says."""
    times: np.ndarray
    """int64 (frames,), ticks."""


def read_picture(sandbox: Sandbox, option: str, file: Path, height: int, width: int) -> Given:
    """Return a picture file: upright, RGB, what is transparent white.

    Raises:
        ValueError: it is no picture, or cannot be read.
    """
    found = _asked(sandbox, "picture_file", option, file, height=height, width=width)
    shown = (found["shown_width"], found["shown_height"])
    return Given(option, file, atomic.sha256_file(file), found["picture"][None], (0,), shown, None)


def open_video(sandbox: Sandbox, option: str, file: Path) -> Video:
    """Return what a video file is, with the times of its frames.

    Raises:
        ValueError: it is no video, or cannot be read.
    """
    probed = _asked(sandbox, "probe", option, file)
    repairs, frames = probed["repairs"], probed["frames"]
    times = _asked(sandbox, "frame_times", option, file, claimed_frames=frames, repairs=repairs)["times"]
    return Video(option, file, probed, times)


def last_frames(sandbox: Sandbox, video: Video, frames: int, stride_frames: int, height: int, width: int) -> Given:
    """Return the last frames of a video, `stride_frames` apart.

    Raises:
        ValueError: the video has too few, or cannot be read.
    """
    there, needed = len(video.times), (frames - 1) * stride_frames + 1
    if there < needed:
        raise ValueError(
            f"{video.option} {video.file} has {frames_of(there)}, but {frames_of(frames)} that are {stride_frames} "
            f"apart are to be given: that takes {needed}"
        )
    return _taken(sandbox, video, there - needed, frames, stride_frames, height, width)


def every_frame(sandbox: Sandbox, video: Video, stride_frames: int, height: int, width: int) -> Given:
    """Return all frames of a video that are `stride_frames` apart, from its first.

    Raises:
        ValueError: as `last_frames`.
    """
    frames = 1 + (len(video.times) - 1) // stride_frames
    return _taken(sandbox, video, 0, frames, stride_frames, height, width)


def _taken(
    sandbox: Sandbox, video: Video, first: int, frames: int, stride_frames: int, height: int, width: int
) -> Given:
    asked = {
        "start_pts": int(video.times[first]),
        "end_pts": int(video.times[-1]) + 1,
        "frames": frames,
        "stride_frames": stride_frames,
        "height": height,
        "width": width,
        "repairs": video.probed["repairs"],
    }
    found = _asked(sandbox, "clip_frames", video.option, video.file, **asked)
    places = tuple(range(first, first + frames * stride_frames, stride_frames))
    shown = (video.probed["width"], video.probed["height"])
    sha256 = atomic.sha256_file(video.file)
    return Given(video.option, video.file, sha256, found["frames"], places, shown, video.probed["fps"])


def _asked(sandbox: Sandbox, function: str, option: str, file: Path, **asked: Any) -> dict[str, Any]:
    found = sandbox.call(function, {"path": str(file), **asked})
    if found["status"] != "ok":
        said = meaning_of(found["reason"])
        raise ValueError(f"{option} {file} cannot be used ({found['reason']}): {said.meaning} {said.remedy}")
    return found


def frames_of(number: int) -> str:
    """Return a number of frames in words."""
    return "one frame" if number == 1 else f"{number} frames"


def rate(fps: float) -> Fraction:
    """Return frames per second as a file states them, such as 30000/1001."""
    return Fraction(fps).limit_denominator(1001)
