"""A picture file that becomes the first frame of a video."""

from pathlib import Path

import cv2
import numpy as np

from stiv_model.pipeline.components import PipelineDefaults


def check(image: Path, option: str) -> None:
    """Refuse, by the first bytes of a file, what is no picture.

    Args:
        option: that names it, for the message.

    Raises:
        ValueError: it is not there, or is no picture.
    """
    if not cv2.haveImageReader(str(image)):
        raise ValueError(f"{option} {image} is not there or is no picture that OpenCV reads")


def read(image: Path, option: str) -> np.ndarray:
    """Return a picture, uint8 RGB (H, W, 3).

    Args:
        option: that names it, for the message.

    Raises:
        ValueError: it is not there, or is no picture.
    """
    picture = cv2.imread(str(image))
    if picture is None:
        raise ValueError(f"{option} {image} is not there or is no picture that OpenCV reads")
    return picture[..., ::-1]


def as_video(picture: np.ndarray, size: PipelineDefaults) -> np.ndarray:
    """Return a picture, uint8 RGB (H, W, 3), as a still video (T, H, W, 3): resized to cover its size, and cropped."""
    height, width = size.height, size.width
    scale = max(height / picture.shape[0], width / picture.shape[1])
    tall, wide = max(height, round(picture.shape[0] * scale)), max(width, round(picture.shape[1] * scale))
    resized = cv2.resize(np.ascontiguousarray(picture), (wide, tall), interpolation=cv2.INTER_AREA)
    top, left = (tall - height) // 2, (wide - width) // 2
    return np.stack([resized[top : top + height, left : left + width]] * size.frames)
