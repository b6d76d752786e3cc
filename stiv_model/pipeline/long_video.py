"""Videos longer than one call makes: key frames at a stride, then what lies between each two of them.

Shapes: T frames, H height, W width.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from stiv_model.latents.order import draw_seed
from stiv_model.pipeline import inputs
from stiv_model.pipeline.components import PipelineDefaults
from stiv_model.pipeline.one_video import VideoModel, make_video
from stiv_model.weights.metadata import Trained

Kept = Callable[[str, Callable[[], np.ndarray]], np.ndarray]
"""Returns a part of the video by its name: what is kept of it, else what the function makes."""


class KeyFrames(NamedTuple):
    """Key frames that one call makes."""

    first: int
    """Number of the first of them, from 0."""
    number: int
    """How many."""
    prompt: str


@dataclass(frozen=True)
class LongVideo:
    """A long video, cut into what single calls make."""

    frames: int
    """Of the whole video, 2 at least."""
    window: int
    """Frames of a call: key frames of a first call, or two key frames with those between them."""
    stride_frames: int
    """Source frames from one frame of the video to the next."""
    prompts: tuple[str, ...]
    """One for all, or one for each key frame: what leads up to it."""
    between_prompt: str | None = None
    """Of the frames between key frames; None: that of the key frame that they lead up to."""

    @property
    def key_stride(self) -> int:
        """Source frames from one key frame to the next: both ends of a window are key frames."""
        return self.stride_frames * (self.window - 1)

    @property
    def key_frames(self) -> int:
        """How many there are; the frames beyond the end of the video, up to the last of them, are dropped."""
        return 1 + math.ceil((self.frames - 1) / (self.window - 1))

    @property
    def windows(self) -> int:
        """How many there are between neighbouring key frames."""
        return self.key_frames - 1

    def prompt(self, number: int) -> str:
        """Return what a key frame shows, and the frames that lead up to it."""
        return self.prompts[number if len(self.prompts) > 1 else 0]

    def calls(self) -> Iterator[KeyFrames]:
        """Give the calls that make the key frames: each with one prompt, and from the second on after a given frame."""
        first = 0
        while first < self.key_frames:
            most = min(self.key_frames, first + (self.window if first == 0 else self.window - 1))
            prompt, last = self.prompt(first), first + 1
            while last < most and self.prompt(last) == prompt:
                last += 1
            yield KeyFrames(first, last - first, prompt)
            first = last


def check(video: LongVideo) -> None:
    """Refuse a long video that has no two frames, or prompts for other key frames than it has.

    Raises:
        ValueError: with both numbers.
    """
    if video.frames < 2 or video.window < 3:
        raise ValueError(
            f"a video of {video.frames} frames in windows of {video.window} has nothing between key frames: it takes 2 "
            "frames and windows of 3 at least"
        )
    if len(video.prompts) not in (1, video.key_frames):
        raise ValueError(
            f"{len(video.prompts)} prompts are given, but {video.frames} frames in windows of {video.window} have "
            f"{video.key_frames} key frames: give one for all, or one for each"
        )


def learned_windows(trained: Trained | None) -> list[tuple[int, int]]:
    """Return frames of a window, and source frames from one of them to the next, as the training had them.

    Those are the modes at which first and last frame were given, first those whose key frames were made too, of these
    the longest first, and of as long ones the widest apart.
    """
    modes = inputs.learned_modes(trained) if trained else []
    keys = {(mode.frames, mode.stride_frames) for mode in modes if mode.given <= {0}}
    between = {(mode.frames, mode.stride_frames) for mode in modes if mode.given == {0, mode.frames - 1}}

    def has_key_frames(window: tuple[int, int]) -> bool:
        frames, stride_frames = window
        return (frames, stride_frames * (frames - 1)) in keys

    return sorted(between, key=lambda window: (has_key_frames(window), window), reverse=True)


def window_of(trained: Trained | None, num_frames: int | None, default: PipelineDefaults) -> tuple[int, int]:
    """Return frames of a window, and source frames from one of them to the next: as in the training, if it is known.

    Args:
        num_frames: of a window, where they are asked for.
        default: of a call, for what no training says.
    """
    learned = [one for one in learned_windows(trained) if num_frames in (None, one[0])]
    frames = num_frames or (trained.frames if trained else default.frames)
    return learned[0] if learned else (frames, default.stride_frames)


def not_trained(video: LongVideo, has_image: bool, trained: Trained | None) -> str | None:
    """Say which of the two modes that a long video takes the training never had; None where it had both."""
    calls = list(video.calls())
    keys = {(0,) if has_image else (), *((0,) for _ in calls[1:])}
    asked: list[tuple[str, tuple[int, ...], int]] = [("key frames", given, video.key_stride) for given in sorted(keys)]
    asked.append(("the frames between key frames", (0, video.window - 1), video.stride_frames))
    if video.between_prompt == "" and trained is not None and trained.text_dropout == 0:
        return (
            f"between key frames there is to be no text, but the model was trained (recipe {trained.recipe_name}) with "
            "text_dropout 0, and has never gone without"
        )
    for what, given, stride in asked:
        if reason := inputs.not_trained(given, video.window, stride, trained):
            return f"{what} are {stride} source frames apart: {reason}; recipe long_video learns both modes"
    return None


def long(
    model: VideoModel,
    prompt: str | Sequence[str],
    frames: int,
    image: np.ndarray | None,
    seed: int,
    num_frames: int | None,
    stride_frames: int | None,
    between_prompt: str | None,
    **call: Any,
) -> Iterator[np.ndarray]:
    """Make a long video, uint8 RGB (T, H, W, 3) by windows; arguments as of `StivPipeline.long`."""
    trained = model.transformer.trained
    window, stride = window_of(trained, num_frames, model.defaults)
    prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
    video = LongVideo(frames, window, stride_frames or stride, prompts, between_prompt)
    check(video)
    if not call.get("untrained") and (reason := not_trained(video, image is not None, trained)):
        raise ValueError(f"{reason}; untrained=True (--untrained) goes on all the same")
    return windows(model, video, seed, image, call)


def _make(name: str, part: Callable[[], np.ndarray]) -> np.ndarray:
    """Make a part of a video of which nothing is kept."""
    return part()


def windows(
    model: VideoModel,
    video: LongVideo,
    seed: int,
    image: np.ndarray | None,
    asked: dict[str, Any],
    kept: Kept = _make,
) -> Iterator[np.ndarray]:
    """Make a long video, of which no more than a window and the key frames of one call are held.

    Key frames beyond the first call go on from the last of the one before, which is given as first frame. Each call has
    a seed of its own, so that a video whose parts are kept goes on as if it had never stopped. Two windows share the
    key frame where they meet, which comes once, as the call of the key frames made it.

    Args:
        seed: of the first call; the others draw theirs from it.
        image: the first key frame, uint8 RGB (H, W, 3); None makes it too.
        asked: more arguments of the calls.
        kept: where parts are kept.

    Yields:
        frames in their order, uint8 RGB (T, H, W, 3): a window without the key frame at its end, cut where the video
        ends; the last key frame by itself where the video ends with it.

    Raises:
        ValueError: as `check` and the calls of the pipeline.
    """
    check(video)
    left, before = video.frames, image
    for call in video.calls():
        keys = kept(f"keys-{call.first:06d}", partial(_key_frames, model, video, call, seed, before, asked))
        for number, key in enumerate(keys, call.first):
            if number > 0:
                assert before is not None, "the key frame before it"
                part = partial(_between, model, video, number, seed, (before, key), asked)
                made = kept(f"window-{number - 1:06d}", part)[:left]
                left -= len(made)
                yield made
            before = key
    if left:
        assert before is not None, "the last key frame"
        yield before[None]


def _key_frames(
    model: VideoModel, video: LongVideo, call: KeyFrames, seed: int, before: np.ndarray | None, asked: dict[str, Any]
) -> np.ndarray:
    """Return the key frames of a call, uint8 RGB (T, H, W, 3), without the one of the call before."""
    own = seed if call.first == 0 else draw_seed(seed, "key frames", call.first)
    given = {} if before is None else {0: before}
    sizes = {"num_frames": video.window, "stride_frames": video.key_stride}
    made = make_video(model, call.prompt, own, given, **(asked | sizes))
    skipped = 0 if call.first == 0 else 1
    return made[skipped : skipped + call.number]


def _between(
    model: VideoModel,
    video: LongVideo,
    number: int,
    seed: int,
    ends: tuple[np.ndarray, np.ndarray],
    asked: dict[str, Any],
) -> np.ndarray:
    """Return the key frame before key frame `number`, and the frames between the two: uint8 RGB (T, H, W, 3)."""
    own = draw_seed(seed, "window", number - 1)
    given = {0: ends[0], video.window - 1: ends[1]}
    sizes = {"num_frames": video.window, "stride_frames": video.stride_frames}
    prompt = video.prompt(number) if video.between_prompt is None else video.between_prompt
    made = make_video(model, prompt, own, given, **(asked | sizes))
    return np.concatenate([ends[0][None], made[1:-1]])
