"""`stiv views`: an object from six more sides, from one picture of it."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flows.commands import given_files, video_jobs
from flows.commands.named_model import TRAINED, ModelFacts
from flows.commands.sections import Sections
from flows.commands.video_jobs import Job, Machine, Work
from flows.commands.video_options import VideoOptions
from stiv_model.diffusion.cameras import CAMERAS, FRAMES, GIVEN_FRAMES, GUIDANCE_SCALE
from stiv_model.pipeline.pipeline import StivPipeline
from tasks.applications import given, view_files
from tasks.sandbox.settings import SandboxSettings

_VIEWS = TRAINED.with_name("views")
"""The weights that multi-view is trained to."""
_FPS = Fraction(2)
"""Of the orbit, whose seven pictures are as many degrees apart as its cameras."""
_OTHERS = {
    "prompt": "views are made without a text",
    "prompts": "views are made without a text",
    "negative_prompt": "views are made without a text",
    "last_image": "one view is given, --image",
    "video": "one view is given, --image",
    "num_frames": f"there are {len(CAMERAS)} views, from the paper's cameras",
}
"""Shared options that views have no use for."""


def views(
    options: VideoOptions,
    sections: Sections,
    sandbox: SandboxSettings,
    set: list[str] | None = None,
) -> None:
    """Show an object from six more sides, from one picture of it (multi-view), from the cameras of the paper.

    They are made by checkpoints/views where no model is named, without a text. A checkpoint is sampled with
    samples.views_guidance_scale and samples.views_steps, a pipeline folder at the paper's guidance scale of 3.5, where
    nothing else is said. In the folder --out lie the six views (view-1.png to view-6.png), all of them in one picture,
    the given one with a blue frame (grid.png), the way around the object (orbit.mp4) and what made it, the cameras too
    (orbit.json). With --num-videos each seed has a folder of its own in there. The picture shows one object before
    plain grey or white; what is transparent shows white.

    Args:
        out: Folder for the pictures, the video and what made them.
        image: Picture file of the object: turned upright, scaled to cover the size of a view, and cut at its centre.
        prompt: Not taken: views are made without a text.
        prompts: Not taken: views are made without a text.
        negative_prompt: Not taken: views are made without a text.
        last_image: Not taken: one view is given.
        video: Not taken: one view is given.
        num_frames: Not taken: there are six views.
        height: Of a view, pixels (default: those of the model, as width is).
        width: Of a view, pixels.
        guidance_scale: How much the views follow the given one; 1 is no guidance.
        num_videos: Times that the object is shown, with this seed and the next ones.
        fps: Pictures per second of orbit.mp4 (default: 2).
        set: Use other values than those of params.yaml, such as sampler.steps=20; of a pipeline folder only devices,
            samples and sandbox may be set.

    examples:
      stiv views --image chair.png --out chair
      stiv views --image chair.png --out chairs --num-videos 4 --num-inference-steps 30
      stiv views --again chair/orbit.json --out same

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a request that cannot be followed.
    """
    if options.again is None:
        _check(options)
    machine = Machine(sections, sandbox, set)
    if options.again is None:
        usual = {"prompt": "", "num_frames": FRAMES, "guidance": options.guidance or "joint"}
        if options.guidance_scale is None and not video_jobs.is_of_checkpoint(options, _VIEWS):
            usual["guidance_scale"] = GUIDANCE_SCALE
        options = options.model_copy(update=usual)
        samples = sections.samples
        options = video_jobs.with_sampling(options, machine, _VIEWS, samples.views_guidance_scale, samples.views_steps)
    for one in _one_by_one(options):
        view_files.check_folder("--out", one.out)
        one = one.model_copy(update={"out": one.out / view_files.ORBIT})
        video_jobs.run("views", one, {}, machine, _prepared, _VIEWS)


def _check(options: VideoOptions) -> None:
    if options.image is None:
        raise ValueError("no picture is given: name the one to show from other sides, --image FILE")
    for name, reason in _OTHERS.items():
        if (value := getattr(options, name)) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is {value}, but {reason}: leave it out")


def _one_by_one(options: VideoOptions) -> list[VideoOptions]:
    if options.num_videos == 1:
        return [options]
    seeds = range(options.seed, options.seed + options.num_videos)
    one = {"num_videos": 1}
    return [options.model_copy(update=one | {"seed": seed, "out": options.out / f"seed{seed}"}) for seed in seeds]


def _prepared(options: VideoOptions, own: dict[str, Any], facts: ModelFacts, sandbox: SandboxSettings) -> Work:
    asked = video_jobs.asked_of(options, facts, stride_frames=1)
    read = given_files.read(options, asked, facts, sandbox, frames=None)
    picture = read.places[0]
    return Work(
        read.files,
        dict.fromkeys(range(GIVEN_FRAMES), picture),
        asked,
        given.rate(options.fps) if options.fps else _FPS,
        asked.stride_frames,
        not_trained(facts),
        Around(picture),
        view_files.records(),
    )


def not_trained(facts: ModelFacts) -> str | None:
    """Say that the model makes no views; None where it does, or nobody wrote down what it does."""
    if facts.trained is None or facts.trained.clean_frames == "views":
        return None
    return (
        f"the model was trained (recipe {facts.trained.recipe_name}) to make videos, not views of an object: that "
        "needs a training with clean_frames: views, as recipe views has it (make views)"
    )


@dataclass(frozen=True)
class Around:
    """How views are made, and shown one after the other."""

    picture: np.ndarray
    """The given view, uint8 RGB (H, W, 3)."""

    def __call__(self, model: StivPipeline, job: Job, asked: dict[str, Any]) -> np.ndarray:
        """Write the views beside the video that is to be, and return its pictures, uint8 RGB (7, H, W, 3)."""
        made = model.views(self.picture, job.seed, **asked)
        _write(job.out.parent, self.picture, made)
        return np.concatenate([self.picture[None], made])


def _write(folder: Path, picture: np.ndarray, made: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, view in zip(view_files.VIEWS, made, strict=True):
        Image.fromarray(view).save(folder / name)
    Image.fromarray(view_files.grid(picture, made)).save(folder / view_files.GRID)
