"""The applications of a `StivPipeline` that take several calls, as its methods; a module each does the work.

Shapes: T frames, H height, W width, in pixels; colours are RGB.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stiv_model.pipeline import continuation, interpolation, long_video
from stiv_model.pipeline.one_video import VideoModel
from stiv_model.pipeline.views import views as make_views


class Applications:
    """Methods of `StivPipeline` that make one video of uint8 frames by several calls, each with a seed of its own."""

    def predict(
        self: VideoModel,
        video: np.ndarray,
        prompt: str = "",
        frames: int | None = None,
        seed: int = 0,
        num_frames: int | None = None,
        **call: Any,
    ) -> np.ndarray:
        """Return a video that begins with given frames and goes on, in windows where it is longer than a call makes.

        Each window is given the last frames of the one before, as many as were given at first.

        Args:
            video: given frames, uint8 RGB (T, H, W, 3), `stride_frames` source frames apart.
            prompt: what the video shows, in words.
            frames: of the whole video, the given ones among them; None is as many as one call makes.
            seed: of the noise of the first window; those of the others are drawn from it.
            num_frames: that one call makes.
            call: more arguments of each call.

        Returns:
            the video, uint8 RGB (frames, H, W, 3).

        Raises:
            ValueError: nothing is left to make, or as the call.
        """
        return continuation.predict(self, video, prompt, frames, seed, num_frames, **call)

    def interpolate(
        self: VideoModel,
        frames: np.ndarray,
        prompt: str = "",
        factor: int = 2,
        stride_frames: int | None = None,
        keep_last: bool = False,
        seed: int = 0,
        num_frames: int | None = None,
        **call: Any,
    ) -> np.ndarray:
        """Return a video with the frames between given ones, in windows that share the frame where they meet.

        What lies between two pictures only takes one call: `pipe(prompt, image=first, last_image=last)`.

        Args:
            frames: given, uint8 RGB (T, H, W, 3), as many as a call is given at least.
            prompt: what the video shows, in words.
            factor: 2, or 4, which is 2 twice.
            stride_frames: source frames from one given frame to the next; None is as in the training.
            keep_last: whether to keep what an even number of frames of a call leaves beyond the last given one.
            seed: of the noise of the first window; those of the others are drawn from it.
            num_frames: that one call makes, every second of them given.
            call: more arguments of each call.

        Returns:
            the video, uint8 RGB (factor * (T - 1) + 1, H, W, 3), with `keep_last` a frame more where there is one.

        Raises:
            ValueError: another factor, a stride that cannot be halved, too few frames, or as the call.
        """
        return interpolation.interpolate(
            self, frames, prompt, factor, stride_frames, keep_last, seed, num_frames, **call
        )

    def views(self: VideoModel, image: np.ndarray, seed: int = 0, **call: Any) -> np.ndarray:
        """Return six views of an object from the paper's cameras, `cameras.CAMERAS`.

        Args:
            image: the object from azimuth 0, uint8 RGB (H, W, 3).
            seed: of the noise.
            call: more arguments of the call; where they say nothing, `guidance` is joint and `guidance_scale` 3.5.

        Returns:
            the views, uint8 RGB (6, H, W, 3).

        Raises:
            ValueError: as the call.
        """
        return make_views(self, image, seed, **call)

    def long(
        self: VideoModel,
        prompt: str | Sequence[str],
        frames: int,
        image: np.ndarray | None = None,
        seed: int = 0,
        num_frames: int | None = None,
        stride_frames: int | None = None,
        between_prompt: str | None = None,
        **call: Any,
    ) -> Iterator[np.ndarray]:
        """Make a video longer than a call makes: key frames, and what lies between each two; one window at a time.

        Args:
            prompt: what the video shows, in words; or one for each key frame, of which two are num_frames - 1 apart.
            frames: of the whole video.
            image: its first frame, uint8 RGB (H, W, 3); None makes it too.
            seed: of the noise of the first call; those of the others are drawn from it.
            num_frames: that one call makes; None is as in the training.
            stride_frames: source frames from one frame to the next; None is as in the training.
            between_prompt: of the frames between key frames, "" for no text; None is that of the key frame after them.
            call: more arguments of each call.

        Returns:
            what gives its frames in their order, window after window, uint8 RGB (T, H, W, 3).

        Raises:
            ValueError: fewer than two frames, prompts for other key frames than there are, or as the call.
        """
        return long_video.long(self, prompt, frames, image, seed, num_frames, stride_frames, between_prompt, **call)
