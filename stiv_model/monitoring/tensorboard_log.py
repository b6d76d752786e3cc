"""What TensorBoard shows of a run: `tensorboard --logdir reports/training`, while it runs and afterwards."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from stiv_model.settings import Run


class TensorBoardLog:
    """The event files of one run: a `stiv_model.monitoring.trackers.Tracker`.

    Shapes: T frames, H height, W width in pixels, C = 3 channels.
    """

    def start(self, run: Run, folder: Path, done: int) -> None:
        """Write to `folder`; what was shown of steps after `done` is taken back."""
        self.writer = SummaryWriter(str(folder), purge_step=done + 1)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Show numbers by name; NaN is left out."""
        for name, value in figures.items():
            if value == value:
                self.writer.add_scalar(name, value, step)

    def video(self, step: int, name: str, frames_THWC: np.ndarray, fps: float) -> None:
        """Show uint8 RGB frames as a moving picture; TensorBoard's own `add_video` would want moviepy for the same."""
        height, width, channels = frames_THWC.shape[1:]
        picture = Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=gif(frames_THWC, fps)
        )
        file = self.writer._get_file_writer()
        file.add_summary(Summary(value=[Summary.Value(tag=name, image=picture)]), step)

    def flush(self) -> None:
        """Put what was shown on the disk: a killed run that goes on shows no gap."""
        self.writer.flush()

    def end(self) -> None:
        """Close the files."""
        self.writer.close()


def gif(frames_THWC: np.ndarray, fps: float) -> bytes:
    """Return frames as an animated GIF that repeats for ever."""
    first, *others = map(Image.fromarray, frames_THWC)
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=others, duration=1000 / fps, loop=0)
    return content.getvalue()
