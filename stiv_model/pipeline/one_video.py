"""One video by one call, as every application makes it that takes several: uint8 in, uint8 out, a seed of its own.

Shapes: T frames, H height, W width, in pixels; colours are RGB.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from stiv_model.pipeline.components import PipelineDefaults, StivTransformerModel


class VideoModel(Protocol):
    """What an application needs of a `StivPipeline`."""

    transformer: StivTransformerModel

    @property
    def defaults(self) -> PipelineDefaults:
        """What a call takes where it says nothing."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make videos, as `StivPipeline` does."""


def make_video(model: VideoModel, prompt: str, seed: int, frames: Mapping[int, np.ndarray], **call: Any) -> np.ndarray:
    """Return one video, uint8 RGB (T, H, W, 3), made by itself: in a batch its last bits could be others.

    Args:
        model: a `StivPipeline`.
        prompt: what the video shows, in words.
        seed: of the starting noise, which is drawn on the CPU.
        frames: given frames, uint8 RGB (H, W, 3), by their place.
        call: more arguments of the call.

    Raises:
        ValueError: as the call.
    """
    generator = torch.Generator().manual_seed(seed)
    (videos,) = model(prompt, frames=frames, generator=generator, output_type="np", return_dict=False, **call)
    return (255 * videos[0]).round().astype(np.uint8)


def check_frames_given(name: str, frames_THWC: np.ndarray) -> None:
    """Refuse given frames of another form than the applications take.

    Args:
        name: of the argument.
        frames_THWC: to be uint8 RGB (T, H, W, 3).

    Raises:
        ValueError: with its form.
    """
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3:
        raise ValueError(
            f"{name} is {frames_THWC.dtype} {frames_THWC.shape}: give frames as uint8 RGB (frames, height, width, 3)"
        )
