"""What the first rank shows of validation: latents, decoded to videos on the disk."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stiv_model.encoders import provenance, vae
from stiv_model.encoders.pixels import to_frames
from stiv_model.encoders.video_file import write_video


class VideoLog:
    """Decodes latents and writes them as videos.

    Args:
        latents: the folder whose VAE it is.
        folder: gets `step-N/` with NAME.mp4 for each video and strip.png, one row per video.
        frames: latent frames of a video.
        device: that decodes.

    Raises:
        FileNotFoundError: the latents do not say which VAE made them, or it is not there.
        ValueError: it is another one.
    """

    def __init__(self, latents: Path, folder: Path, frames: int, device: torch.device):
        settings, _ = provenance.read(latents, batch=frames)
        self.fps = 8  # how fast the clips were is not known here: every third frame at 24 per second, as in the paper
        self.folder, self.vae = folder, vae.load(settings, device)

    def show(self, step: int, latents: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Write the videos after a step, all or none, and return their frames by name.

        Args:
            step: counted from 1.
            latents: (F, C, H, W) of each video by its name.

        Returns:
            uint8 RGB frames (T, H, W, 3) of each.
        """
        videos = {name: self._decode(one) for name, one in latents.items()}
        folder = self.folder / f"step-{step:08d}"
        tmp_path = folder.with_name(f"{folder.name}.tmp")
        for old in (folder, tmp_path):
            shutil.rmtree(old, ignore_errors=True)
        tmp_path.mkdir(parents=True)
        for name, frames in videos.items():
            if len(frames) > 1:
                write_video(tmp_path / f"{name.replace(' ', '-')}.mp4", frames, self.fps)
        Image.fromarray(strip(list(videos.values()))).save(tmp_path / "strip.png")
        tmp_path.rename(folder)
        return videos

    def _decode(self, latents_FCHW: Tensor) -> np.ndarray:
        return to_frames(self.vae.decode(latents_FCHW))


def strip(videos: Sequence[np.ndarray]) -> np.ndarray:
    """Return one picture (H, W, 3) of videos (T, H, W, 3): a row per video, a column per frame."""
    return np.concatenate([np.concatenate(list(frames_THWC), axis=1) for frames_THWC in videos])
