"""`stiv sample`: one video for one prompt."""

from pathlib import Path

import cv2
import numpy as np

from stiv_model.encoders.video_file import write_video
from stiv_model.settings import DeviceSettings, SamplerSettings, TextSettings, VaeSettings
from tasks.generation.samples import load, make_videos
from tasks.generation.settings import SampleSettings
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
    checkpoint: Path = Path("checkpoints/unmask_sft"),
    image: Path | None = None,
    seed: int = 0,
    fps: int = 8,
) -> None:
    """Generate one video from a text, or from a text and its first frame.

    It is made on `devices.sampling`, by a model in `samples.precision`.

    Args:
        prompt: What the video shall show, in words.
        out: File for the video (mp4).
        checkpoint: Folder of trained weights, as a training stage wrote it.
        image: Picture file that becomes the first frame; cropped and resized to the size of the model's videos.
        seed: Seed of the starting noise: the same seed makes the same video.
        fps: Frames per second of the file.

    examples:
      stiv sample --prompt "a red circle moves left" --out red.mp4
      stiv sample --prompt "a red circle moves left" --image first.png --out red.mp4 --seed 3
    """
    source = None
    if image is not None:
        picture = cv2.imread(str(image))
        if picture is None:
            raise ValueError(f"--image {image} is not there or is no picture that OpenCV reads")
        source = [np.stack([_cover(picture[..., ::-1], latents.height, latents.width)] * latents.frames)]
    pipeline = load(checkpoint, vae, text, latents, sampler, samples.precision, devices.sampling)
    pipeline.set_progress_bar_config(disable=False, desc="sampling steps")  # type: ignore[no-untyped-call]
    (video,) = make_videos(pipeline, [prompt], [seed], "none" if source is None else "first", source)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_video(out, video, fps)
    print(out)


def _cover(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize so that the picture covers height x width, and crop its middle."""
    scale = max(height / picture.shape[0], width / picture.shape[1])
    tall, wide = max(height, round(picture.shape[0] * scale)), max(width, round(picture.shape[1] * scale))
    resized = cv2.resize(np.ascontiguousarray(picture), (wide, tall), interpolation=cv2.INTER_AREA)
    top, left = (tall - height) // 2, (wide - width) // 2
    return resized[top : top + height, left : left + width]
