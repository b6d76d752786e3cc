"""What the first rank shows of validation: latents, decoded to videos on the disk."""

import json
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
from stiv_model.monitoring import validation_files
from stiv_model.settings import ValidationMetric


class VideoLog:
    """Decodes latents and writes them as videos.

    Args:
        latents: the folder whose VAE it is.
        folder: gets `step-N/` with NAME.mp4 for each video, NAME.png for one of a single frame, their prompts,
            and strip.png, one row per video.
        prompts: what the videos called `prompt N` were asked to show, in turn.
        metrics: names of what is measured of the videos.
        frames: latent frames of a video.
        device: that decodes.

    Raises:
        FileNotFoundError: the latents do not say which VAE made them, or it is not there.
        ValueError: it is another one.
    """

    def __init__(
        self,
        latents: Path,
        folder: Path,
        prompts: Sequence[str],
        metrics: Sequence[ValidationMetric],
        frames: int,
        device: torch.device,
    ):
        settings, _ = provenance.read(latents, batch=frames)
        self.fps = 8  # how fast the clips were is not known here: every third frame at 24 per second, as in the paper
        self.metrics = tuple(metrics)
        self.folder, self.prompts, self.vae = folder, list(prompts), vae.load(settings, device)

    def show(self, step: int, latents: Mapping[str, Tensor]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Write the videos after a step, all or none, and return their frames by name, and the means of the metrics.

        Args:
            step: counted from 1.
            latents: (F, C, H, W) of each video by its name.

        Returns:
            uint8 RGB frames (T, H, W, 3) of each; and figures by the name that trackers show.
        """
        videos = {name: self._decode(one) for name, one in latents.items()}
        folder = self.folder / validation_files.step_folder(step)
        tmp_path = folder.with_name(f"{folder.name}.tmp")
        for old in (folder, tmp_path):
            shutil.rmtree(old, ignore_errors=True)
        tmp_path.mkdir(parents=True)
        for name, frames in videos.items():
            file = tmp_path / name.replace(" ", "-")
            if len(frames) > 1:
                write_video(file.with_suffix(".mp4"), frames, self.fps)
            else:
                Image.fromarray(frames[0]).save(file.with_suffix(".png"))
        (tmp_path / validation_files.PROMPTS).write_text(json.dumps(self.prompts))
        figures = self._measure(videos, tmp_path) if self.metrics else {}
        Image.fromarray(strip(list(videos.values()))).save(tmp_path / "strip.png")
        tmp_path.rename(folder)
        return videos, figures

    def _measure(self, videos: Mapping[str, np.ndarray], folder: Path) -> dict[str, float]:
        from stiv_model.monitoring.validation_metrics import means, measure  # OpenCV, for those who name a metric

        measured = measure(videos, self.metrics, self.fps)
        (folder / validation_files.METRICS).write_text(json.dumps(measured, indent=2))
        return means(measured)

    def _decode(self, latents_FCHW: Tensor) -> np.ndarray:
        return to_frames(self.vae.decode(latents_FCHW))


def strip(videos: Sequence[np.ndarray]) -> np.ndarray:
    """Return one picture (H, W, 3) of videos (T, H, W, 3): a row per video, a column per frame; black is none."""
    rows = [np.concatenate(list(frames_THWC), axis=1) for frames_THWC in videos]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
