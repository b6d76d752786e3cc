"""`stiv long`: a video longer than one call makes, by key frames and what lies between them."""

import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from flows.commands import given_files, video_jobs, video_record
from flows.commands.named_model import ModelFacts, for_tasks
from flows.commands.sections import Sections
from flows.commands.video_jobs import Job, Machine, Work
from flows.commands.video_options import VideoOptions
from flows.commands.video_record import VideoRecord
from stiv_model.encoders.text import check_lengths
from stiv_model.encoders.video_file import write_windows
from stiv_model.pipeline import long_video
from stiv_model.pipeline.long_video import LongVideo
from stiv_model.pipeline.pipeline import StivPipeline
from tasks.applications import parts
from tasks.sandbox.settings import SandboxSettings

_SHOWN = Fraction(1, 1000)
"""Seconds that a length may be told to."""


def long(
    options: VideoOptions,
    sections: Sections,
    sandbox: SandboxSettings,
    seconds: float | None = None,
    between_prompt: str | None = None,
    restart: bool = False,
    set: list[str] | None = None,
) -> None:
    """Make a video longer than one call makes: key frames first, then the frames between each two of them.

    One model that has learned both makes them (recipe tasks, or docs/model.md, long_video): key frames far apart, and
    what lies between a first and a last frame. Key frames of windows of n frames are n - 1 apart; neighbouring windows
    share one. --num-frames are those of a window. With --prompts each line is of one key frame: what the video shows on
    the way to it. Memory does not grow with the length: windows go into OUT.partial as they are made, and the same
    command after a kill goes on at the next one; the video is the same, byte for byte. A checkpoint is sampled with
    samples.given_guidance_scale, samples.given_steps and samples.long_between_prompt, where nothing else is said.

    Args:
        prompts: Text file with a prompt on each line, in place of --prompt: of one key frame after the other.
        last_image: Not taken: a long video begins with text or --image.
        video: Not taken: a long video begins with text or --image.
        num_frames: Frames of a window, its key frames among them (default: those that the model was trained for;
            height, width, steps and guidance are the model's too).
        seconds: Length of the video; --prompts FILE says it too, by its number of lines.
        between_prompt: Text for the frames between key frames, "" for none (default: that of the key frame after them).
        restart: Delete what another request for the same --out has begun.
        set: Use other values than those of params.yaml, such as sampler.steps=20; of a pipeline folder only devices,
            samples and sandbox may be set.

    examples:
      stiv long --prompt "a red circle moves left" --seconds 16 --checkpoint checkpoints/long_video --out long.mp4
      stiv long --prompts way.txt --image first.png --out way.mp4
      stiv long --again long.json --out same.mp4

    Raises:
        OSError: a file cannot be read or written, or the disk is too full.
        ValueError: a request that cannot be followed.
    """
    own: dict[str, Any] = {"seconds": seconds, "key_prompts": None, "between_prompt": between_prompt}
    machine, trained, samples = Machine(sections, sandbox, set), for_tasks(), sections.samples
    if options.again is None:
        options, own["key_prompts"] = _checked(options, seconds)
        if between_prompt is None and video_jobs.is_of_checkpoint(options, trained):
            own["between_prompt"] = samples.long_between_prompt
        options = video_jobs.with_sampling_of_given(options, machine, trained)
    for name, value in (("seconds", seconds), ("between-prompt", between_prompt)) if options.again is not None else ():
        if value is not None:
            raise ValueError(f"--again {options.again} says all of what to make: leave --{name} out")
    video_jobs.run("long", options, own, machine, partial(_prepared, restart=restart), trained)


def _checked(options: VideoOptions, seconds: float | None) -> tuple[VideoOptions, list[str] | None]:
    """Return options with the prompt of the first key frame, and the prompts of all key frames where each has one."""
    if options.video is not None or options.last_image is not None:
        name, value = ("video", options.video) if options.video is not None else ("last-image", options.last_image)
        raise ValueError(
            f"--{name} {value}: a long video begins with text or --image; stiv predict goes on from a video, and stiv "
            "interpolate makes what lies between two pictures"
        )
    if seconds is None and options.prompts is None:
        raise ValueError("the length is not said: --seconds, or --prompts FILE with a prompt for each key frame")
    prompts = video_jobs.prompts_of(options)
    if options.prompts is None:
        return options, None
    return options.model_copy(update={"prompt": prompts[0], "prompts": None}), prompts


def _prepared(
    options: VideoOptions, own: dict[str, Any], facts: ModelFacts, sandbox: SandboxSettings, restart: bool
) -> Work:
    window, stride_frames = long_video.window_of(facts.trained, options.num_frames, facts.defaults)
    if window < 3:
        raise ValueError(f"a window of {window} frames has none between its key frames: name --num-frames, 3 at least")
    one = options.model_copy(update={"num_frames": window})
    asked = video_jobs.asked_of(one, facts, stride_frames * (window - 1))
    read = given_files.read(one, asked, facts, sandbox, frames=None)
    fps = given_files.rate(options, read.files, stride_frames)
    prompts = tuple(own["key_prompts"] or [options.prompt or ""])
    seconds = own["seconds"]
    frames = (len(prompts) - 1) * (window - 1) + 1 if seconds is None else frames_of(seconds, fps)
    video = LongVideo(frames, window, stride_frames, prompts, own.get("between_prompt"))
    long_video.check(video)
    return Work(
        read.files,
        read.places,
        asked,
        fps,
        stride_frames,
        long_video.not_trained(video, bool(read.places), facts.trained),
        write=_Writing(video, read.places.get(0), (asked.height, asked.width), restart),
    )


def not_trained(
    facts: ModelFacts, num_frames: int | None, frames: int | None, num_prompts: int, has_image: bool
) -> str | None:
    """Say why a model was not trained for a long video; None where it was, or nobody knows.

    Args:
        num_frames: of a window; None takes those of the training.
        frames: of the video; None takes as many as there are prompts for, or of one prompt as one call's key frames
            are for.
        num_prompts: one, or one for each key frame.
        has_image: whether it begins with a picture.
    """
    window, stride_frames = long_video.window_of(facts.trained, num_frames, facts.defaults)
    if window < 3:
        return None
    gaps = num_prompts - 1 if num_prompts > 1 else window - 1
    video = LongVideo(frames or gaps * (window - 1) + 1, window, stride_frames, ("",))
    return long_video.not_trained(video, has_image, facts.trained)


def frames_of(seconds: float, fps: Fraction) -> int:
    """Return how many frames a video of this length has.

    Raises:
        ValueError: it is no whole number of frames, to a thousandth of a second; with the two nearest lengths.
    """
    exact = Fraction(str(seconds)) * fps
    if abs(exact - round(exact)) <= fps * _SHOWN / 2 and exact > 1:
        return round(exact)
    below = max(2, math.floor(exact))
    lengths = [round(float(each / fps), 3) for each in (below, below + 1)]
    raise ValueError(
        f"--seconds is {seconds:g}, which at {float(fps):g} frames per second are {float(exact):.2f} frames: use "
        f"{lengths[0]:g} or {lengths[1]:g}"
    )


@dataclass(frozen=True)
class _Writing:
    """How a long video is made and written."""

    video: LongVideo
    image: np.ndarray | None
    size: tuple[int, int]
    restart: bool

    def __call__(self, model: StivPipeline, job: Job, asked: dict[str, Any], record: VideoRecord) -> str:
        """Make and write the video; return the sha256 of its bytes.

        Raises:
            OSError: the disk is too full.
            ValueError: the folder of parts is of another video, or a prompt is too long.
        """
        prompts = [*self.video.prompts, self.video.between_prompt or ""]
        check_lengths(model.tokenizer, prompts, model.defaults.text_tokens)
        model.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]  # one bar, over all windows
        job.out.parent.mkdir(parents=True, exist_ok=True)
        before = None if self.restart else parts.begun(job.out)
        if before is not None:
            record = record.model_copy(update={"threads": before.get("threads", record.threads)})
        _check_disk(job.out, self.video, self.size)
        run = record.model_dump(mode="json", exclude={"file", "sha256"})
        kept = parts.open_parts(job.out, run, self.restart)
        torch.set_num_threads(record.threads)
        made = kept.folder / "video.mp4"
        write_windows(made, self._frames(model, job, asked, kept), *self.size, Fraction(record.fps), record.comment)
        sha256 = video_record.put(made, job.out, record)
        shutil.rmtree(kept.folder)
        return sha256

    def _frames(self, model: StivPipeline, job: Job, asked: dict[str, Any], kept: parts.Parts) -> Iterator[np.ndarray]:
        there = kept.kept("window")
        if there:
            print(f"{kept.folder}: goes on after {there} of {self.video.windows} windows", file=sys.stderr)
        with tqdm(total=self.video.windows, initial=there, unit="window", desc=job.out.name) as bar:
            for part in long_video.windows(model, self.video, job.seed, self.image, asked, kept):
                bar.update(kept.kept("window") - bar.n)
                yield part


def _check_disk(out: Path, video: LongVideo, size: tuple[int, int]) -> None:
    """Refuse a long video that the disk has no room for: its parts as they are, and the file, half as large at most.

    Raises:
        OSError: with both numbers.
    """
    frame = size[0] * size[1] * 3
    folder = parts.folder_of(out)
    there = sum(each.stat().st_size for each in folder.glob("*.npy"))
    needed = frame * (video.frames + video.window + video.key_frames) - there + frame * video.frames // 2
    if (free := shutil.disk_usage(out.parent).free) < needed:
        raise OSError(
            f"{out.parent} has {free / 1e6:,.0f} MB free, and a video of {video.frames} frames takes "
            f"{needed / 1e6:,.1f} MB while it is made: free some space, or name an --out on another disk"
        )
