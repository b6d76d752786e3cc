"""`stiv predict`: what comes after the last frames of a video."""

from typing import Any

from flows.commands import given_files, video_jobs
from flows.commands.named_model import ModelFacts, Sections
from flows.commands.video_jobs import Machine, Work
from flows.commands.video_options import VideoOptions
from stiv_model.settings import DeviceSettings, SamplerSettings, TextSettings, VaeSettings
from tasks.generation.settings import SampleSettings
from tasks.latents.settings import LatentSettings
from tasks.sandbox.settings import SandboxSettings


def predict(
    options: VideoOptions,
    sampler: SamplerSettings,
    vae: VaeSettings,
    text: TextSettings,
    latents: LatentSettings,
    samples: SampleSettings,
    devices: DeviceSettings,
    sandbox: SandboxSettings,
    given: int | None = None,
    set: list[str] | None = None,
) -> None:
    """Go on with a video: its last frames are given, and the model makes what comes next.

    The video is opened in the sandbox. Its frames are taken as far apart as those of the training were, so that one of
    30 frames per second makes one of 10 where the model learned every third. The prompt may be left out.

    Args:
        given: Frames that are given, the last ones of the video (default: as many as the model was trained to be
            given).
        set: Use other values than those of params.yaml, such as sampler.steps=20; of a pipeline folder only devices,
            samples and sandbox may be set.

    examples:
      stiv predict --video walk.mp4 --given 4 --checkpoint checkpoints/v2v --out next.mp4
      stiv predict --video red.mp4 --given 1 --prompt "a red circle moves left" --out next.mp4
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
        options = video_jobs.with_empty_prompt(options)
    machine = Machine(Sections(sampler, vae, text, latents, samples, devices), sandbox, set)
    video_jobs.run("predict", options, {"given": given}, machine, _prepared)


def _prepared(options: VideoOptions, own: dict[str, Any], facts: ModelFacts, sandbox: SandboxSettings) -> Work:
    asked = video_jobs.asked_of(options, facts)
    frames = own["given"]
    if frames is not None and frames >= asked.frames:
        raise ValueError(f"--given is {frames}, but the video has {asked.frames} frames: leave one to make")
    read = given_files.read(options, asked, facts, sandbox, frames)
    return Work(
        read.files, read.places, asked, given_files.rate(options, read.files, asked.stride_frames), asked.stride_frames
    )
