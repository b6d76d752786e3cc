"""The frames between the frames of a video (temporal upsampling, TUP): in windows, once or twice.

Shapes: T given frames, H height, W width, in pixels; colours are RGB.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from stiv_model.latents.order import draw_seed
from stiv_model.pipeline.inputs import learned_modes
from stiv_model.pipeline.one_video import VideoModel, check_frames_given, make_video
from stiv_model.weights.metadata import Trained

_PASSES = {2: 1, 4: 2}
"""Times that the frames are doubled, by factor."""


class Window(NamedTuple):
    """Given frames that one call fills in between."""

    first: int
    """Place of its first given frame among all given ones."""
    given: int
    """How many."""


def check_factor(name: str, factor: int) -> None:
    """Refuse a factor that is not one of doubling once or twice.

    Args:
        name: of the option or argument.

    Raises:
        ValueError: with those that are.
    """
    if factor not in _PASSES:
        raise ValueError(f"{name} is {factor}: frames are doubled once or twice: use 2 or 4")


def check_window(name: str, frames: int) -> None:
    """Refuse a length of a call in which no frame lies between two given ones.

    Args:
        name: of the option or argument.

    Raises:
        ValueError: with the least that has one.
    """
    if frames < 3:
        raise ValueError(f"{name} is {frames}, in which no frame lies between two given ones: use 3 or more")


def windows(frames: int, window: int) -> list[Window]:
    """Return the windows over given frames, of which neighbours share one frame at least.

    Args:
        frames: that are given, as many as fill a window at least.
        window: frames that one call makes, every second of them given.
    """
    each = len(range(0, window, 2))
    starts = [*range(0, frames - each, each - 1), frames - each]
    return [Window(start, each) for start in starts]


def strides_of(
    trained: Trained | None, default_stride: int, frames: int, factor: int, stride_frames: int | None
) -> list[int]:
    """Return the source frames from one frame to the next after each pass.

    Args:
        trained: what the model learned; None where it is not known.
        default_stride: source frames from one frame of its videos to the next.
        frames: that one call makes.
        factor: 2 or 4.
        stride_frames: source frames from one given frame to the next; None is as in the training.

    Raises:
        ValueError: another factor, or a stride that cannot be halved so often.
    """
    check_factor("factor", factor)
    passes = _PASSES[factor]
    known = _widest(learned_strides(trained, frames), passes) or default_stride
    first = Fraction(stride_frames, 2) if stride_frames else Fraction(known)
    wanted = [first / 2**done for done in range(passes)]
    for stride in wanted:
        if stride.denominator != 1:
            raise ValueError(
                f"a factor of {factor} fills in between frames {2 * stride} source frames apart, which cannot be "
                "halved: give frames that are further apart"
            )
    return [int(stride) for stride in wanted]


def learned_strides(trained: Trained | None, frames: int) -> list[int]:
    """Return the source frames from one frame to the next at which every second one was given, the most first."""
    modes = learned_modes(trained) if trained else []
    return sorted({mode.stride_frames for mode in modes if mode.given == frozenset(range(0, frames, 2))}, reverse=True)


def _widest(learned: Sequence[int], passes: int) -> int | None:
    """Return the widest stride that the model has learned with those that later passes need, else the widest."""
    whole = [s for s in learned if all(s % 2**done == 0 and s // 2**done in learned for done in range(passes))]
    return next(iter([*whole, *learned]), None)


def interpolate(
    model: VideoModel,
    frames_THWC: np.ndarray,
    prompt: str,
    factor: int,
    stride_frames: int | None,
    keep_last: bool,
    seed: int,
    num_frames: int | None,
    **call: Any,
) -> np.ndarray:
    """Return a video with the frames between given ones; arguments as of `StivPipeline.interpolate`."""
    check_frames_given("frames", frames_THWC)
    window = num_frames or model.defaults.frames
    check_window("num_frames", window)
    strides = strides_of(model.transformer.trained, model.defaults.stride_frames, window, factor, stride_frames)
    if len(frames_THWC) < (least := len(range(0, window, 2))):
        raise ValueError(f"frames are {len(frames_THWC)}, but a call fills in between {least}: give that many")
    made, beyond = frames_THWC, None
    for number, stride in enumerate(strides):
        asked = call | {"num_frames": window, "stride_frames": stride}
        made, beyond = _doubled(model, made, prompt, seed, number, asked)
    return np.concatenate([made, beyond]) if keep_last and beyond is not None else made


def _doubled(
    model: VideoModel, frames: np.ndarray, prompt: str, seed: int, number: int, asked: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return 2 T - 1 frames of T, and those that the last window made beyond its last given one."""
    made = np.empty((2 * len(frames) - 1, *frames.shape[1:]), np.uint8)
    beyond = None
    for place, window in enumerate(windows(len(frames), asked["num_frames"])):
        inside = {2 * at: frames[window.first + at] for at in range(window.given)}
        is_first = number == place == 0
        own = seed if is_first else draw_seed(seed, f"pass {number}", place)
        video = make_video(model, prompt, own, inside, **asked)
        last = 2 * window.given - 1
        made[2 * window.first : 2 * window.first + last] = video[:last]
        beyond = video[last:] if len(video) > last else None
    return made, beyond
