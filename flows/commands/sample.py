"""`stiv sample`: one video for one prompt."""

from pathlib import Path

from flows.commands import first_frame
from flows.commands.named_model import Sections, choose
from stiv_model.encoders.video_file import write_video
from stiv_model.settings import DeviceSettings, SamplerSettings, TextSettings, VaeSettings
from tasks.generation.settings import SampleSettings
from tasks.generation.videos import make_videos
from tasks.latents.settings import LatentSettings


def sample(
    prompt: str,
    out: Path,
    sampler: SamplerSettings,
    vae: VaeSettings,
    text: TextSettings,
    latents: LatentSettings,
    samples: SampleSettings,
    devices: DeviceSettings,
    checkpoint: Path | None = None,
    pipeline: str | None = None,
    image: Path | None = None,
    seed: int = 0,
    fps: int = 8,
    set: list[str] | None = None,
) -> None:
    """Generate one video from a text, or from a text and its first frame.

    It is made by checkpoints/unmask_sft where that was trained, else by the model that comes with the package. A
    checkpoint makes it with the size and sampler of params.yaml, a pipeline folder with its own. In both cases on
    `devices.sampling`, by a model in `samples.precision`.

    Args:
        prompt: What the video shall show, in words.
        out: File for the video (mp4).
        checkpoint: Folder of trained weights, as a training stage wrote it.
        pipeline: Pipeline folder, as `stiv export` wrote it, or the name of one on the hub.
        image: Picture file that becomes the first frame; cropped and resized to the size of the model's videos.
        seed: Seed of the starting noise: the same seed makes the same video.
        fps: Frames per second of the file.
        set: Use other values than those of params.yaml, such as sampler.steps=20; of a pipeline folder only devices and
            samples may be set.

    examples:
      stiv sample --prompt "a red circle moves left" --out red.mp4
      stiv sample --prompt "a red circle moves left" --image first.png --out red.mp4 --seed 3
      stiv sample --prompt "a red circle moves left" --pipeline pipelines/demo --out red.mp4
    """
    picture = None if image is None else first_frame.read(image, "--image")
    named = choose(checkpoint, pipeline)
    model = named.open(Sections(sampler, vae, text, latents, samples, devices), set)
    source = None if picture is None else [first_frame.as_video(picture, model.defaults)]
    model.set_progress_bar_config(disable=False, desc="sampling steps")  # type: ignore[no-untyped-call]
    (video,) = make_videos(model, [prompt], [seed], "none" if source is None else "first", source)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_video(out, video, fps)
    print(out)
