"""What every command that makes videos does: options checked, files read in the sandbox, videos and records written."""

import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from flows.commands import video_record
from flows.commands.named_model import TRAINED, ModelFacts, choose
from flows.commands.sections import Sections
from flows.commands.video_options import VideoOptions
from flows.params import PARAMS
from flows.running import locks
from stiv_model.encoders.text import check_lengths
from stiv_model.pipeline.components import PipelineDefaults
from stiv_model.pipeline.folders import SHIPPED
from stiv_model.pipeline.inputs import check_frames, not_trained
from stiv_model.pipeline.one_video import make_video
from stiv_model.pipeline.pipeline import StivPipeline
from stiv_model.settings_errors import checked
from tasks.applications.given import Given
from tasks.applications.view_files import CameraRecord
from tasks.generation.videos import check_is_video
from tasks.sandbox.settings import SandboxSettings

_WITH_AGAIN = {"again", "out", "checkpoint", "pipeline"}


class Machine(NamedTuple):
    """What params.yaml says, and --set."""

    sections: Sections
    sandbox: SandboxSettings
    assignments: list[str] | None


class Job(NamedTuple):
    """One video."""

    prompt: str
    seed: int
    out: Path


class Work(NamedTuple):
    """What a command has found out before the model is loaded."""

    given: list[Given]
    """Files."""
    places: Mapping[int, np.ndarray]
    """Given frames of one call by their place, uint8 RGB (H, W, 3)."""
    asked: PipelineDefaults
    """What the model is called with."""
    fps: Fraction
    """Frames per second of the file."""
    stride_frames: int
    """Source frames from one frame of the video to the next."""
    not_trained: str | None = None
    """What of it the model was never trained for, beside what a call itself says."""
    make: Callable[[StivPipeline, Job, dict[str, Any]], np.ndarray] | None = None
    """How a video is made, uint8 RGB (T, H, W, 3), where that takes more than one call."""
    cameras: tuple[CameraRecord, ...] | None = None
    """Of the pictures that are made, where they are views of an object."""
    write: Callable[[StivPipeline, Job, dict[str, Any], video_record.VideoRecord], str] | None = None
    """Makes and writes a video that is not held in memory; returns the sha256 of its bytes."""


Prepare = Callable[[VideoOptions, dict[str, Any], ModelFacts, SandboxSettings], Work]


def run(
    command: str,
    options: VideoOptions,
    own: dict[str, Any],
    machine: Machine,
    prepare: Prepare,
    trained: Path = TRAINED,
) -> None:
    """Make the videos of a command, and say where they are.

    Args:
        command: its verb.
        own: its options beside the shared ones; what was not asked for is None or False.
        prepare: reads what is given, and says what the model is called with.
        trained: the checkpoint that makes them where it is here and no model is named.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a request that cannot be followed.
    """
    before = None
    if options.again is not None:
        before, options, own, machine = _again(command, options, own, machine)
    jobs = jobs_of(options)
    _check_fps(options.fps)
    for job in jobs:
        _check_apart(job.out, options)
        video_record.check_replaceable(job.out)
    named = choose(options.checkpoint, options.pipeline, trained)
    if named.checkpoint is not None and before is None and not PARAMS.exists():
        raise FileNotFoundError(
            f"{PARAMS} is not here, and says size and sampler of {named.checkpoint}: run stiv where it is, or name "
            "--pipeline"
        )
    facts = named.facts(machine.sections)
    check_is_video(facts.is_video, named.checkpoint or named.pipeline)
    check_frames(options.num_frames or facts.temporal_patch, facts.temporal_patch)
    with locks.video(options.out, command):
        work = prepare(options, own, facts, machine.sandbox)
        for each in work.given:
            print(each.told, file=sys.stderr)
        places, size = work.places.keys(), work.asked
        untrained = work.not_trained or not_trained(places, size.frames, size.stride_frames, facts.trained)
        if untrained and not options.untrained:
            raise ValueError(f"{untrained}; --untrained goes on all the same")
        hashes = named.sha256()
        if before is not None:
            assert options.again is not None, "whence it was read"
            video_record.check_same(before, hashes, work.given, options.again)
        model = named.open(machine.sections, machine.assignments)
        check_lengths(model.tokenizer, [job.prompt for job in jobs], size.text_tokens)
        model.set_progress_bar_config(disable=False, desc="sampling steps")  # type: ignore[no-untyped-call]
        for job in jobs:
            record = video_record.describe(
                command,
                told_options(options, own, job),
                named,
                hashes,
                machine.sections,
                size,
                work.given,
                untrained,
                work.fps,
                work.stride_frames,
                work.cameras,
            )
            sha256 = _write(model, job, options, work, record)
            if before is not None:
                video_record.check_bytes(before, record, sha256, job.out)
            print(job.out)


_LEAST_FPS, _MOST_FPS = 0.01, 1000


def _check_fps(fps: float | None) -> None:
    if fps is not None and not _LEAST_FPS <= fps <= _MOST_FPS:
        raise ValueError(f"--fps is {fps:g}: a file has {_LEAST_FPS} to {_MOST_FPS} frames per second")


def _check_apart(out: Path, options: VideoOptions) -> None:
    """Refuse to write over a file that is read.

    Raises:
        ValueError: with the option that names it.
    """
    made = {video_record.beside(out).resolve(): f"the record of --out {out}", out.resolve(): f"--out {out}"}
    for name in ("again", "video", "image", "last_image", "prompts"):
        file = getattr(options, name)
        if file is not None and (what := made.get(file.resolve())):
            raise ValueError(f"{what} would take the place of --{name.replace('_', '-')} {file}: name another --out")


def _write(model: StivPipeline, job: Job, options: VideoOptions, work: Work, record: video_record.VideoRecord) -> str:
    """Make and write a video; return the sha256 of its bytes."""
    asked = {
        "negative_prompt": options.negative_prompt,
        "height": work.asked.height,
        "width": work.asked.width,
        "num_frames": work.asked.frames,
        "stride_frames": work.asked.stride_frames,
        "num_inference_steps": options.num_inference_steps,
        "guidance": options.guidance,
        "guidance_scale": options.guidance_scale,
        "image_guidance_scale": options.image_guidance_scale,
        "untrained": options.untrained,
    }
    if work.write is not None:
        return work.write(model, job, asked, record)
    if work.make is not None:
        return video_record.write(job.out, work.make(model, job, asked), record)
    return video_record.write(job.out, make_video(model, job.prompt, job.seed, work.places, **asked), record)


def told_options(options: VideoOptions, own: dict[str, Any], job: Job) -> dict[str, Any]:
    """Return the options of one video as its record has them: those that were given, and the command's own."""
    one = options.model_copy(update={"prompt": job.prompt, "prompts": None, "num_videos": 1, "seed": 0})
    without = {"out", "again", "checkpoint", "pipeline"}
    return one.model_dump(mode="json", exclude=without, exclude_defaults=True) | own | {"seed": job.seed}


def _again(
    command: str, options: VideoOptions, own: dict[str, Any], machine: Machine
) -> tuple[video_record.VideoRecord, VideoOptions, dict[str, Any], Machine]:
    """Return the record that a video is to be made again by, and what it says in the place of options and settings."""
    assert options.again is not None, "who calls has seen it"
    shared = sorted(options.model_dump(exclude_defaults=True).keys() - _WITH_AGAIN)
    if more := [*shared, *(name for name, value in own.items() if value not in (None, False))]:
        option = more[0].replace("_", "-")
        raise ValueError(f"--again {options.again} says all of what to make: leave --{option} out")
    for assignment in machine.assignments or ():
        if not assignment.startswith("sandbox."):
            raise ValueError(f"--again {options.again} says all of what to make: leave --set {assignment} out")
    record = video_record.read(options.again, command)
    told = {name: value for name, value in record.options.items() if name not in own}
    own = own | {name: value for name, value in record.options.items() if name in own}
    if options.checkpoint is None and options.pipeline is None:
        told |= {"checkpoint": record.model.checkpoint, "pipeline": record.model.pipeline}
        if record.model.checkpoint is None and record.model.pipeline is None:
            told["pipeline"] = str(SHIPPED)
    else:
        told |= {"checkpoint": options.checkpoint, "pipeline": options.pipeline}
    asked = checked(VideoOptions, told | {"out": options.out, "again": options.again}, f"--again {options.again}")
    torch.set_num_threads(record.threads)
    return record, asked, own, machine._replace(sections=record.sections(machine.sections), assignments=None)


def jobs_of(options: VideoOptions) -> list[Job]:
    """Return the videos that are asked for.

    Raises:
        OSError: the prompts cannot be read.
        ValueError: there is no prompt, or one file for several videos.
    """
    prompts = prompts_of(options)
    videos = [(prompt, options.seed + more) for prompt in prompts for more in range(options.num_videos)]
    if len(videos) > 1:
        if options.out.suffix or options.out.is_file():
            raise ValueError(f"--out {options.out} is one file, but {len(videos)} videos are asked for: name a folder")
        return [
            Job(prompt, seed, options.out / f"{place // options.num_videos:03d}-seed{seed}.mp4")
            for place, (prompt, seed) in enumerate(videos)
        ]
    if options.out.is_dir() or options.out.suffix == ".json":
        raise ValueError(
            f"--out {options.out} is to be a video: name a file, such as {options.out.with_suffix('.mp4')}"
        )
    return [Job(*videos[0], options.out)]


def prompts_of(options: VideoOptions) -> list[str]:
    """Return the prompts.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is none, or a line without one.
    """
    if options.prompt is not None and options.prompts is not None:
        raise ValueError(f"--prompt and --prompts {options.prompts} are both given: leave one of them out")
    if options.prompts is None:
        if options.prompt is None:
            raise ValueError("no prompt is given: say what the video shall show, --prompt TEXT, or --prompts FILE")
        return [options.prompt]
    lines = options.prompts.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(f"--prompts {options.prompts}: line {number} is empty: write a prompt, or take it out")
    if not lines:
        raise ValueError(f"--prompts {options.prompts} is empty: write a prompt on each line")
    return [line.strip() for line in lines]


def with_empty_prompt(options: VideoOptions) -> VideoOptions:
    """Return options that ask for no text where they name none, for a command that can do without."""
    is_silent = options.prompt is None and options.prompts is None
    return options.model_copy(update={"prompt": ""}) if is_silent else options


def is_of_checkpoint(options: VideoOptions, trained: Path) -> bool:
    """Whether a checkpoint makes the videos, rather than a pipeline folder.

    Args:
        trained: the checkpoint that is taken where it is here and no model is named.
    """
    return options.pipeline is None and (options.checkpoint is not None or trained.exists())


def with_sampling_of_given(options: VideoOptions, machine: Machine, trained: Path) -> VideoOptions:
    """Return options that ask for what stage samples takes where several frames are given, as `with_sampling`.

    Args:
        trained: the checkpoint that is taken where it is here and no model is named.
    """
    samples = machine.sections.samples
    return with_sampling(options, machine, trained, samples.given_guidance_scale, samples.given_steps)


def with_sampling(options: VideoOptions, machine: Machine, trained: Path, scale: float, steps: int) -> VideoOptions:
    """Return options that ask a checkpoint for this guidance scale and these steps, unless they say otherwise.

    A pipeline folder has values of its own. What --set says of the sampler stays.

    Args:
        trained: the checkpoint that is taken where it is here and no model is named.
        scale: of guidance.
        steps: of sampling.
    """
    if not is_of_checkpoint(options, trained):
        return options
    usual = {
        "guidance_scale": ("sampler.guidance_scale", scale),
        "num_inference_steps": ("sampler.steps", steps),
    }
    stated = {assignment.partition("=")[0] for assignment in machine.assignments or []}
    missing = {
        name: value for name, (key, value) in usual.items() if getattr(options, name) is None and key not in stated
    }
    return options.model_copy(update=missing)


def asked_of(options: VideoOptions, facts: ModelFacts, stride_frames: int | None = None) -> PipelineDefaults:
    """Return what the model is called with: its own values, in the place of which stand those that are asked for.

    Raises:
        ValueError: a value that there is not.
    """
    size = {
        "height": options.height,
        "width": options.width,
        "frames": options.num_frames,
        "stride_frames": stride_frames,
    }
    sampler = {
        "steps": options.num_inference_steps,
        "guidance": options.guidance,
        "guidance_scale": options.guidance_scale,
        "image_guidance_scale": options.image_guidance_scale,
    }
    asked = facts.defaults.replaced(size, sampler)
    if options.image_guidance_scale is not None and asked.sampler.guidance != "separate":
        raise ValueError(
            f"--image-guidance-scale is {options.image_guidance_scale}, but guidance is {asked.sampler.guidance}, "
            "which has one scale for all: add --guidance separate, or leave it out"
        )
    return asked
