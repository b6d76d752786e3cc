"""`stiv interpolate`: the frames between two pictures, or between the frames of a video (TUP)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flows.commands import given_files, video_jobs, video_record
from flows.commands.named_model import TRAINED, ModelFacts, for_tasks
from flows.commands.sections import Sections
from flows.commands.video_jobs import Job, Machine, Work
from flows.commands.video_options import VideoOptions
from stiv_model.pipeline.interpolation import check_factor, check_window, learned_strides, strides_of
from stiv_model.pipeline.pipeline import StivPipeline
from tasks.applications import given
from tasks.applications.given import Given
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import SandboxSettings

_FACTOR = 2
_TUP = TRAINED.with_name("tup")
"""The weights that temporal upsampling is trained to."""


def interpolate(
    options: VideoOptions,
    sections: Sections,
    sandbox: SandboxSettings,
    factor: int | None = None,
    stride_frames: int | None = None,
    keep_last: bool = False,
    set: list[str] | None = None,
) -> None:
    """Make the frames between a first and a last picture, or between the frames of a video (temporal upsampling).

    Of n frames of a video 2n - 1 are made, or 4n - 3 with a factor of 4, which is the same done twice. A long one is
    made in windows, which share the frame where they meet. The frames between which the model fills in are as far apart
    as in its training: of footage every so many-th frame is taken; a video that stiv made, whose JSON lies beside it,
    or of which --stride-frames says it, must have them so, or is refused with both numbers. A video is made by
    checkpoints/tup where no model is named. The prompt may be left out. A checkpoint is sampled with
    samples.given_guidance_scale and samples.given_steps, where nothing else is said.

    Args:
        video: Video file between whose frames more are made.
        num_frames: Frames of a window of --video, or of what is made between two pictures, the given ones among them
            (default: those of the model, as height, width, steps and guidance are).
        factor: How many times as many frames are made of --video: 2 or 4 (default: 2).
        stride_frames: Source frames from one frame of --video to the next, where its frames are not those of footage.
        keep_last: Keep the frame that an even number of frames leaves beyond the last given one.
        set: Use other values than those of params.yaml, such as sampler.steps=20; of a pipeline folder only devices,
            samples and sandbox may be set.

    examples:
      stiv interpolate --video walk.mp4 --factor 2 --out smooth.mp4
      stiv interpolate --video walk.mp4 --factor 2 --stride-frames 4 --checkpoint checkpoints/tup --out smooth.mp4
      stiv interpolate --image first.png --last-image last.png --checkpoint checkpoints/tasks --out between.mp4
      stiv interpolate --again smooth.json --out same.mp4

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a request that cannot be followed.
    """
    own = {"factor": factor, "stride_frames": stride_frames, "keep_last": keep_last}
    if options.again is None:
        _check(options, own)
        if options.video is not None:
            own["factor"] = factor or _FACTOR
        options = video_jobs.with_empty_prompt(options)
    machine = Machine(sections, sandbox, set)
    trained = for_tasks() if options.image is not None else _TUP
    if options.again is None:
        options = video_jobs.with_sampling_of_given(options, machine, trained)
    video_jobs.run("interpolate", options, own, machine, _prepared, trained)


def _check(options: VideoOptions, own: dict[str, Any]) -> None:
    factor, stride_frames = own["factor"], own["stride_frames"]
    pictures = [options.image, options.last_image]
    if options.video is None and None in pictures:
        raise ValueError("name what lies on both sides: --image FIRST and --last-image LAST, or --video FILE")
    if options.video is not None and pictures != [None, None]:
        raise ValueError(f"--video {options.video} and pictures are both given: leave one of them out")
    for name, value in own.items() if options.video is None else ():
        if value not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} goes with --video, but pictures are given: leave it out")
    if factor is not None:
        check_factor("--factor", factor)
    if stride_frames is not None and stride_frames < 1:
        raise ValueError(f"--stride-frames is {stride_frames}: frames are one source frame apart at least")


def _prepared(options: VideoOptions, own: dict[str, Any], facts: ModelFacts, sandbox: SandboxSettings) -> Work:
    if options.video is None:
        asked = video_jobs.asked_of(options, facts)
        read = given_files.read(options, asked, facts, sandbox, frames=None)
        fps = given_files.rate(options, read.files, asked.stride_frames)
        return Work(read.files, read.places, asked, fps, asked.stride_frames)
    stated = _stated(options.video, own["stride_frames"])
    window = options.num_frames or facts.defaults.frames
    check_window("--num-frames", window)
    strides = strides_of(facts.trained, facts.defaults.stride_frames, window, own["factor"], stated)
    asked = video_jobs.asked_of(options, facts, strides[0])
    apart = 1 if stated else 2 * strides[0]
    frames = _frames(options, asked.frames, apart, (asked.height, asked.width), sandbox)
    assert frames.fps is not None, "a video has a rate"
    return Work(
        [frames],
        dict(zip(range(0, asked.frames, 2), frames.frames, strict=False)),
        asked,
        given.rate(options.fps) if options.fps else given.rate(frames.fps) * own["factor"] / apart,
        strides[-1],
        _not_trained(facts, strides, asked.frames),
        _Doubling(frames.frames, own["factor"], 2 * strides[0], own["keep_last"]),
    )


@dataclass(frozen=True)
class _Doubling:
    """How a video is made of every second or fourth frame of it."""

    frames: np.ndarray
    """Given, uint8 RGB (T, H, W, 3)."""
    factor: int
    stride_frames: int
    """Source frames from one given frame to the next."""
    keep_last: bool

    def __call__(self, model: StivPipeline, job: Job, asked: dict[str, Any]) -> np.ndarray:
        """Return the video, uint8 RGB."""
        own = {"factor": self.factor, "stride_frames": self.stride_frames, "keep_last": self.keep_last}
        return model.interpolate(self.frames, job.prompt, seed=job.seed, **(asked | own))


def _stated(video: Path, stride_frames: int | None) -> int | None:
    """Return how many source frames lie between those of a video, as its record or an option says; None of footage.

    Raises:
        ValueError: the two differ.
    """
    recorded = video_record.stride_of(video)
    if recorded and stride_frames and recorded != stride_frames:
        raise ValueError(
            f"--stride-frames is {stride_frames}, but the record of --video {video} says {recorded}: leave it out"
        )
    return stride_frames or recorded


def _not_trained(facts: ModelFacts, strides: Sequence[int], frames: int) -> str | None:
    """Say of which pass the training never had frames so far apart; None where it had all, or never such ones."""
    learned = learned_strides(facts.trained, frames)
    for stride in strides:
        if facts.trained and learned and stride not in learned:
            known = " or ".join(str(2 * one) for one in learned)
            return (
                f"the frames to fill in between are {2 * stride} source frames apart, but the model was trained "
                f"(recipe {facts.trained.recipe_name}) between frames {known} apart"
            )
    return None


def _frames(options: VideoOptions, window: int, apart: int, size: tuple[int, int], sandbox: SandboxSettings) -> Given:
    assert options.video is not None, "who calls has seen it"
    with Sandbox(sandbox.model_copy(update={"workers": 1})) as opened:
        video = given.open_video(opened, "--video", options.video)
        least = 1 + (len(range(0, window, 2)) - 1) * apart
        if len(video.times) < least:
            raise ValueError(
                f"--video {options.video} has {given.frames_of(len(video.times))}, but the model fills in between "
                f"{len(range(0, window, 2))} that are {apart} apart in the file: that takes {least}"
            )
        return given.every_frame(opened, video, apart, *size)
