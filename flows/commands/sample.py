"""`stiv sample`: one video for one prompt."""

from pathlib import Path

import cv2
import numpy as np

from stiv_model.encoders.video_file import write_video
from stiv_model.settings import SamplerSettings, TextSettings, VaeSettings
from tasks.generation.samples import load, make_videos
from tasks.latents.settings import LatentSettings


def sample(
    prompt: str,
    out: Path,
    sampler: SamplerSettings,
    vae: VaeSettings,
    text: TextSettings,
    latents: LatentSettings,
    checkpoint: Path = Path("checkpoints/unmask_sft"),
    image: Path | None = None,
    seed: int = 0,
    fps: int = 8,
) -> None:
    """Generate one video, from text, or from text and a first frame.

    Args:
        prompt: What the video shall show.
        out: File for the video (mp4).
        checkpoint: Folder of the trained weights, as a training stage wrote it.
        image: Picture that becomes the first frame; cropped and resized to the model's size.
        seed: Of the noise: the same seed makes the same video.
        fps: Frames per second of the file.

    examples:
      stiv sample --prompt "a red circle moves left" --out red.mp4
      stiv sample --prompt "a red circle moves left" --image first.png --out red.mp4 --seed 3
    """
    given = None
    if image is not None:
        picture = cv2.imread(str(image))
        if picture is None:
            raise ValueError(f"--image {image} is not there or is no picture that OpenCV reads")
        given = [np.stack([_cover(picture[..., ::-1], latents.height, latents.width)] * latents.frames)]
    pipeline = load(checkpoint, vae, text, latents, sampler)
    pipeline.set_progress_bar_config(disable=False, desc="sampling steps")  # type: ignore[no-untyped-call]
    (video,) = make_videos(pipeline, [prompt], [seed], "none" if given is None else "first", given)
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
