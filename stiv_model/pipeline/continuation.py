"""What comes next: a video that goes on from given frames, in as many windows as its length takes.

Shapes: T frames, H height, W width, in pixels; colours are RGB.
"""

from typing import Any

import numpy as np

from stiv_model.latents.order import draw_seed
from stiv_model.pipeline.one_video import VideoModel, check_frames_given, make_video


def predict(
    model: VideoModel,
    video_THWC: np.ndarray,
    prompt: str,
    frames: int | None,
    seed: int,
    num_frames: int | None,
    **call: Any,
) -> np.ndarray:
    """Return a video that goes on from given frames; arguments as of `StivPipeline.predict`."""
    check_frames_given("video", video_THWC)
    given, window = len(video_THWC), num_frames or model.defaults.frames
    total = window if frames is None else frames
    if not 0 < given < min(window, total):
        raise ValueError(
            f"video has {given} frames, but {min(window, total)} are to be made of which they are the first: give one "
            "at least, and leave one to make"
        )
    last, parts = video_THWC, list[np.ndarray]()
    for place in range(windows(total, given, window)):
        own = seed if place == 0 else draw_seed(seed, "window", place)
        part = make_video(model, prompt, own, dict(enumerate(last)), num_frames=window, **call)
        parts.append(part if place == 0 else part[given:])  # its given frames are there, coded once less
        last = np.concatenate([last, parts[-1]])[-given:]
    return np.concatenate(parts)[:total]


def windows(frames: int, given: int, window: int) -> int:
    """Return how many calls a video of so many frames takes, each of which is given the last frames of the one before.

    Args:
        frames: of the whole video, the given ones among them.
        given: frames of each call that are given.
        window: frames of each call.
    """
    more = max(0, frames - window)
    return 1 - (-more // (window - given))
