"""`stiv sample`: videos from text, and from text and pictures."""

from typing import Any

from flows.commands import given_files, video_jobs
from flows.commands.named_model import ModelFacts
from flows.commands.sections import Sections
from flows.commands.video_jobs import Machine, Work
from flows.commands.video_options import VideoOptions
from tasks.sandbox.settings import SandboxSettings


def sample(
    options: VideoOptions,
    sections: Sections,
    sandbox: SandboxSettings,
    set: list[str] | None = None,
) -> None:
    """Generate videos from a text, or from a text and pictures: a first frame, a last one, or a video to go on from.

    They are made by checkpoints/unmask_sft where that was trained, else by the model that comes with the package. A
    checkpoint makes them with the size and sampler of params.yaml, a pipeline folder with its own. In both cases on
    `devices.sampling`, by a model in `samples.precision`; pictures and videos are opened in the sandbox. Beside each
    video lies a JSON of all that made it, which the file carries as its comment too.

    Args:
        set: Use other values than those of params.yaml, such as sampler.steps=20; of a pipeline folder only devices,
            samples and sandbox may be set.

    examples:
      stiv sample --prompt "a red circle moves left" --out red.mp4
      stiv sample --prompt "a red circle moves left" --image first.png --out red.mp4 --seed 3
      stiv sample --prompts prompts.txt --num-videos 4 --num-inference-steps 30 --guidance-scale 3 --out videos
      stiv sample --prompt "a red circle moves left" --pipeline pipelines/demo --out red.mp4
      stiv sample --again red.json --out same.mp4

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a request that cannot be followed.
    """
    video_jobs.run("sample", options, {}, Machine(sections, sandbox, set), _prepared)


def _prepared(options: VideoOptions, own: dict[str, Any], facts: ModelFacts, sandbox: SandboxSettings) -> Work:
    asked = video_jobs.asked_of(options, facts)
    given = given_files.read(options, asked, facts, sandbox, frames=None)
    return Work(
        given.files,
        given.places,
        asked,
        given_files.rate(options, given.files, asked.stride_frames),
        asked.stride_frames,
    )
