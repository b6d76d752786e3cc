"""The files that a command is given, at the size and stride of the model's videos."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flows.commands import video_record
from flows.commands.named_model import ModelFacts
from flows.commands.video_options import VideoOptions
from stiv_model.pipeline.components import PipelineDefaults
from stiv_model.pipeline.inputs import learned_modes
from tasks.applications import given
from tasks.applications.given import Given
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import SandboxSettings

FPS = 8
"""Frames per second of a video that goes on from no other."""
_SAME_SHAPE = 0.01  # within which two pictures are of one shape: a pixel of a hundred


class Read(NamedTuple):
    """Files, and the given frames of a call."""

    files: list[Given]
    places: Mapping[int, np.ndarray]
    """By their place in the video, uint8 RGB (H, W, 3)."""


def read(
    options: VideoOptions,
    asked: PipelineDefaults,
    facts: ModelFacts,
    sandbox: SandboxSettings,
    frames: int | None,
) -> Read:
    """Return --image, --last-image and the last frames of --video, opened in the sandbox.

    Args:
        asked: size and stride of the video.
        frames: that --video gives; None is as many as the model was trained to be given.

    Raises:
        ValueError: a file that cannot be used, or two that do not fit each other.
    """
    if options.video is not None and options.image is not None:
        raise ValueError(f"--image {options.image} and --video {options.video} both begin the video: leave one out")
    if options.image is None and options.last_image is None and options.video is None:
        return Read([], {})
    files: list[Given] = []
    places: dict[int, np.ndarray] = {}
    with Sandbox(sandbox.model_copy(update={"workers": 1})) as opened:
        size = (asked.height, asked.width)
        if options.video is not None:
            video = given.open_video(opened, "--video", options.video)
            count = most_given(facts) if frames is None else frames
            files.append(given.last_frames(opened, video, count, _apart(options.video, asked.stride_frames), *size))
            places |= dict(enumerate(files[-1].frames))
        if options.image is not None:
            files.append(given.read_picture(opened, "--image", options.image, *size))
            places[0] = files[-1].frames[0]
        if options.last_image is not None:
            files.append(given.read_picture(opened, "--last-image", options.last_image, *size))
            _check_shape(files)
            places[asked.frames - 1] = files[-1].frames[0]
    return Read(files, places)


def most_given(facts: ModelFacts) -> int:
    """Return how many of the first frames the model was trained to be given, one where none."""
    known = [mode.given for mode in learned_modes(facts.trained)] if facts.trained else []
    return max((len(places) for places in known if places == frozenset(range(len(places)))), default=1) or 1


def _check_shape(files: list[Given]) -> None:
    """Refuse a last picture of another shape than the first, of which another part would be cut off."""
    first, last = files[0], files[-1]
    shapes = [each.shown[0] / each.shown[1] for each in (first, last)]
    if abs(shapes[1] / shapes[0] - 1) > _SAME_SHAPE:
        sizes = ["{} x {}".format(*each.shown) for each in (first, last)]
        raise ValueError(
            f"{last.option} {last.file} is {sizes[1]} pixels, but {first.option} {first.file} is {sizes[0]}: "
            "crop one to the shape of the other"
        )


def rate(options: VideoOptions, files: list[Given], stride_frames: int) -> Fraction:
    """Return the frames per second that are asked for, or follow from a video, or where neither says so FPS.

    Args:
        stride_frames: source frames from one frame to the next.
    """
    if options.fps is not None:
        return given.rate(options.fps)
    known = [each for each in files if each.fps is not None]
    if not known or known[0].fps is None:
        return Fraction(FPS)
    return given.rate(known[0].fps) / _apart(known[0].file, stride_frames)


def _apart(video: Path, stride_frames: int) -> int:
    """Return how many frames of a file lie from one that is given to the next: fewer where stiv made it by a stride.

    Raises:
        ValueError: its frames are further apart than those that are to be made, or fall beside them.
    """
    recorded = video_record.stride_of(video)
    if not recorded:
        return stride_frames
    if stride_frames % recorded:
        raise ValueError(
            f"--video {video} has frames {recorded} source frames apart, as its record says, but the model makes them "
            f"{stride_frames} apart: name a video whose frames are nearer"
        )
    return stride_frames // recorded
