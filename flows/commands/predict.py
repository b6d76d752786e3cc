"""`stiv predict`: what comes after the last frames of a video."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from flows.commands import given_files, video_jobs
from flows.commands.named_model import TRAINED, ModelFacts, for_tasks
from flows.commands.sections import Sections
from flows.commands.video_jobs import Job, Machine, Work
from flows.commands.video_options import VideoOptions
from stiv_model.pipeline.pipeline import StivPipeline
from tasks.sandbox.settings import SandboxSettings

_MILLISECOND = Fraction(1, 1000)
_LONGEST = 3600
"""Seconds: the whole video is in memory."""


def predict(
    options: VideoOptions,
    sections: Sections,
    sandbox: SandboxSettings,
    given: int | None = None,
    seconds: float | None = None,
    set: list[str] | None = None,
) -> None:
    """Go on with a video: its last frames are given, and the model makes what comes next.

    The video is opened in the sandbox. Its frames are taken as far apart as those of the training were, so that one of
    30 frames per second makes one of 10 where the model learned every third. The prompt may be left out. Where --given
    is more than 1, a checkpoint is sampled with samples.given_guidance_scale and samples.given_steps, where nothing
    else is said.

    Args:
        video: Video file to go on with: its last frames become the first ones.
        given: Frames that are given, the last ones of the video (default: as many as the model was trained to be
            given).
        seconds: Length of the file, the given frames among it, in place of --num-frames: longer than the model makes
            at once, it goes on in windows, each of which is given the last frames of the one before.
        set: Use other values than those of params.yaml, such as sampler.steps=20; of a pipeline folder only devices,
            samples and sandbox may be set.

    examples:
      stiv predict --video walk.mp4 --given 4 --checkpoint checkpoints/tasks --out next.mp4
      stiv predict --video red.mp4 --given 1 --prompt "a red circle moves left" --out next.mp4
      stiv predict --video walk.mp4 --given 4 --seconds 10 --checkpoint checkpoints/tasks --out next.mp4
      stiv predict --video walk.mp4 --num-videos 4 --out futures
      stiv predict --again next.json --out same.mp4

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a request that cannot be followed.
    """
    if options.again is None:
        if options.video is None:
            raise ValueError("no video is given: name the one to go on with, --video FILE")
        if given is not None and given < 1:
            raise ValueError(f"--given is {given}: one frame is given at least")
        if seconds is not None and not 0 < seconds <= _LONGEST:
            raise ValueError(f"--seconds is {seconds:g}: use more than 0, and {_LONGEST} at most")
        if seconds is not None and options.num_frames is not None:
            raise ValueError(
                f"--seconds {seconds:g} and --num-frames {options.num_frames} both say how long the video is: leave "
                "one of them out"
            )
        options = video_jobs.with_empty_prompt(options)
    machine = Machine(sections, sandbox, set)
    is_of_several = given is not None and given > 1
    trained = for_tasks() if is_of_several else TRAINED
    if options.again is None and is_of_several:
        options = video_jobs.with_sampling_of_given(options, machine, trained)
    video_jobs.run("predict", options, {"given": given, "seconds": seconds}, machine, _prepared, trained)


def _prepared(options: VideoOptions, own: dict[str, Any], facts: ModelFacts, sandbox: SandboxSettings) -> Work:
    asked = video_jobs.asked_of(options, facts)
    frames = own["given"]
    if frames is not None and frames >= asked.frames:
        raise ValueError(f"--given is {frames}, but the video has {asked.frames} frames: leave one to make")
    read = given_files.read(options, asked, facts, sandbox, frames)
    fps = given_files.rate(options, read.files, asked.stride_frames)
    if own["seconds"] is None:
        return Work(read.files, read.places, asked, fps, asked.stride_frames)
    total = _frames(own["seconds"], fps)
    if total <= len(read.places):
        raise ValueError(
            f"--seconds {own['seconds']:g} is {total} frames at {float(fps):g} per second, of which {len(read.places)} "
            "are given: leave one to make"
        )
    return Work(
        read.files,
        read.places,
        asked,
        fps,
        asked.stride_frames,
        make=_Windows(np.stack([*read.places.values()]), total),
    )


@dataclass(frozen=True)
class _Windows:
    """How a video is made that is longer than one call makes."""

    given: np.ndarray
    """Frames, uint8 RGB (T, H, W, 3)."""
    frames: int
    """Of the whole video."""

    def __call__(self, model: StivPipeline, job: Job, asked: dict[str, Any]) -> np.ndarray:
        """Return the video, uint8 RGB (frames, H, W, 3)."""
        return model.predict(self.given, job.prompt, self.frames, job.seed, **asked)


def _frames(seconds: float, fps: Fraction) -> int:
    """Return how many frames a video of a length has.

    Raises:
        ValueError: no number of frames lasts so long, to the millisecond.
    """
    asked = Fraction(seconds) * fps
    frames = round(asked)
    if abs(frames / fps - Fraction(seconds)) > _MILLISECOND:
        below = math.floor(asked)
        near = [
            f"{float(each / fps):.3f}".rstrip("0").rstrip(".") + f" ({each})" for each in (below, below + 1) if each
        ]
        raise ValueError(
            f"--seconds {seconds:g} at {float(fps):g} frames per second is {float(asked):.2f} frames: use "
            f"{' or '.join(near)}"
        )
    return frames
