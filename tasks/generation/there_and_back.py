"""Long videos of the embedded corpus `shapes`: an object goes where its scene says, back again, and so on.

Shapes: T frames, H height, W width, in pixels; colours are RGB.
"""

from typing import Any, NamedTuple

import numpy as np

from stiv_model.pipeline import long_video
from stiv_model.pipeline.pipeline import StivPipeline
from tasks.demo import shapes

_TURN = 2
"""Windows from one turn of the object to the next. The further it has come, the less any clip of the corpus goes back
from there, as a model is asked to."""
_BACK: dict[shapes.Direction, shapes.Direction] = {"left": "right", "right": "left", "up": "down", "down": "up"}


class Made(NamedTuple):
    """A long video, and what is known of it."""

    video: np.ndarray
    """uint8 (T, H, W, 3)."""
    truth: np.ndarray
    """Where the object really goes, of the same shape."""
    prompts: list[str]
    """Of the key frames."""
    window: int
    """Frames of a window, both its key frames among them."""


def prompts_of(scene: shapes.Scene, leg: int, window: int, windows: int) -> list[str]:
    """Return a prompt for each key frame of a long video: what the object does on the way to it.

    Args:
        scene: the first way of the object.
        leg: steps from one frame to the next until it turns.
        window: frames of a window, both its key frames among them.
        windows: of the video.
    """
    there, back = (shapes.caption(one) for one in (scene, scene._replace(direction=_BACK[scene.direction])))
    arrivals = [max(0, key * (window - 1) - 1) for key in range(windows + 1)]
    return [(there, back)[step // leg % 2] for step in arrivals]


def truth_of(source: np.ndarray, frames: int) -> np.ndarray:
    """Return so many frames of a scene, uint8 RGB (frames, H, W, 3), that is played forwards, backwards and so on."""
    leg = len(source) - 1
    steps = np.arange(frames) % (2 * leg)
    return source[np.minimum(steps, 2 * leg - steps)]


def make(
    pipeline: StivPipeline, scene: shapes.Scene, source: np.ndarray, windows: int, seed: int, asked: dict[str, Any]
) -> Made:
    """Make a long video of a scene from its first frame.

    Args:
        pipeline: of a model that has learned key frames and what lies between them.
        source: the scene as the corpus has it.
        windows: of the video.
        seed: of the first call.
        asked: more arguments of the calls.

    Raises:
        ValueError: the model has learned no such thing.
    """
    window, stride_frames = long_video.window_of(pipeline.transformer.trained, None, pipeline.defaults)
    leg = min(_TURN * (window - 1), len(source) - 1)
    prompts = prompts_of(scene, leg, window, windows)
    frames = windows * (window - 1) + 1
    made = pipeline.long(
        prompts, frames, image=source[0], seed=seed, num_frames=window, stride_frames=stride_frames, **asked
    )
    return Made(np.concatenate(list(made)), truth_of(source[: leg + 1], frames), prompts, window)
