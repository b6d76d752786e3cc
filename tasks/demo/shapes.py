"""The embedded corpus `shapes`, and its judge: one coloured shape moves in one direction over a grey texture.

Every video is a pure function of (seed, number), and its caption is true by construction, so that the whole
pipeline, and how well a model follows text, can be measured without a download. The judge reads colour, shape
and direction back from pixels with classical image processing: it knows nothing of the model that made them.
"""

import re
from colorsys import hsv_to_rgb
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np

from tasks.demo.look import MARGIN, TEXTURED, Background, Look
from tasks.demo.objects import centre_of, continuity, keeps_size, largest_part

Colour = Literal["red", "yellow", "green", "cyan", "blue", "magenta"]
Shape = Literal["circle", "square", "triangle", "cross"]
Direction = Literal["left", "right", "up", "down"]

COLOURS: tuple[Colour, ...] = get_args(Colour)
"""In order of hue, 60 degrees apart, red at 0."""
SHAPES: tuple[Shape, ...] = get_args(Shape)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

CHANCE = {"colour": 1 / len(COLOURS), "shape": 1 / len(SHAPES), "direction": 1 / len(DIRECTIONS)}
"""Share that a judge of random videos would find right."""

_STEPS: dict[Direction, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

_TEMPLATES = (
    "a {colour} {shape} moves {direction} over a {background} grey background",
    "a {colour} {shape} is moving {direction} in front of a {background} grey wall",
    "a {shape} of {colour} colour slides {direction} across a {background} grey picture",
    "over a {background} grey background, a {colour} {shape} moves {direction}",
    "a {colour} {shape} moves {direction}",
)


TEMPLATES = len(_TEMPLATES)
"""Sentences that a scene may be captioned by."""


class Combination(NamedTuple):
    """What a caption says and the judge reads."""

    colour: Colour
    shape: Shape
    direction: Direction


class Scene(NamedTuple):
    """One video. Lengths are shares of the picture's side, from the top left corner."""

    colour: Colour
    shape: Shape
    direction: Direction
    background: Background
    size: float
    """Side of the square that the shape fills."""
    start: tuple[float, float]
    """Centre (x, y) in the first frame."""
    travel: float
    """Way from the first to the last frame."""
    speed_change: float
    """Speed is travel * (1 + speed_change * cos(2 pi time)), time from 0 to 1."""
    hue: float
    """Degrees off the pure colour."""
    value: float
    """Brightness of the shape, 0 to 1."""
    template: int
    """Which sentence captions it."""
    texture_seed: int


def _is_held_out(colour: int, shape: int, direction: int) -> bool:
    """Latin-square rule: 2 of each colour's 16 combinations, 3 of each shape's and each direction's 24."""
    return (colour + shape) % 2 == 0 and direction == (shape + colour // 2) % len(DIRECTIONS)


def _combinations(held_out: bool) -> tuple[Combination, ...]:
    return tuple(
        Combination(colour, shape, direction)
        for c, colour in enumerate(COLOURS)
        for s, shape in enumerate(SHAPES)
        for d, direction in enumerate(DIRECTIONS)
        if _is_held_out(c, s, d) == held_out
    )


HELD_OUT = _combinations(held_out=True)
"""The 12 combinations that no training scene shows; each word of them occurs equally often in training."""
TRAINING = _combinations(held_out=False)


def scene(seed: int, number: int, held_out: bool, look: Look = TEXTURED) -> Scene:
    """Return scene `number` of the corpus of this seed; combinations come in shuffled rounds, so counts stay even.

    Args:
        seed, number: which scene; it is a pure function of all arguments.
        held_out: of a combination that no training scene shows, or of one that they show.
        look: what sizes, ways and backgrounds are drawn from.

    Raises:
        ValueError: `seed` or `number` is negative.
    """
    if seed < 0 or number < 0:
        raise ValueError(f"shapes scene: seed is {seed} and number is {number}: both must be 0 or more")
    combinations = HELD_OUT if held_out else TRAINING
    epoch, place = divmod(number, len(combinations))
    order = np.random.default_rng([seed, held_out, 0, epoch]).permutation(len(combinations))
    colour, shape, direction = combinations[order[place]]

    random = np.random.default_rng([seed, held_out, 1, number])
    size, travel = random.uniform(*look.size), random.uniform(*look.travel)
    low, high = MARGIN + size / 2, 1 - MARGIN - size / 2
    along = random.uniform(max(low, look.start), high - travel)
    across = random.uniform(max(low, look.across[0]), min(high, look.across[1]))
    dx, dy = _STEPS[direction]
    if dx + dy < 0:
        along += travel - max(0.0, look.start - low)  # as far from the other edge
    return Scene(
        colour=colour,
        shape=shape,
        direction=direction,
        background=look.backgrounds[random.integers(len(look.backgrounds))],
        size=float(size),
        start=(float(along), float(across)) if dx else (float(across), float(along)),
        travel=float(travel),
        speed_change=float(random.uniform(-0.3, 0.3)),
        hue=float(random.uniform(-6, 6)),
        value=float(random.uniform(0.8, 1.0)),
        template=int(random.integers(len(_TEMPLATES))),
        texture_seed=int(random.integers(2**31)),
    )


def caption(scene: Scene) -> str:
    """Return a sentence that is true of the scene."""
    return _TEMPLATES[scene.template].format(**scene._asdict())


def prompt(combination: Combination, background: Background = "cloudy") -> str:
    """Return the sentence that asks a model for this combination; of the same form as the captions."""
    return _TEMPLATES[0].format(**combination._asdict(), background=background)


def said(text: str) -> Combination | None:
    """Return what a sentence says of one shape; None where it has no or several words of a kind."""
    words = re.findall(r"[a-z]+", text.lower())
    colours = [word for word in COLOURS if word in words]
    forms = [word for word in SHAPES if word in words]
    directions = [word for word in DIRECTIONS if word in words]
    if not len(colours) == len(forms) == len(directions) == 1:
        return None
    return Combination(colours[0], forms[0], directions[0])


def render(scene: Scene, pixels: int, frames: int) -> np.ndarray:
    """Draw the scene, from its begin to its end.

    Returns:
        uint8 RGB of shape (frames, pixels, pixels, 3); equal arguments give equal bytes.
    """
    return render_at(scene, pixels, np.linspace(0, 1, frames))


def render_at(scene: Scene, pixels: int, times: np.ndarray) -> np.ndarray:
    """Draw some moments of the scene.

    Args:
        times: from 0, its begin, to 1, its end.

    Returns:
        uint8 RGB of shape (times, pixels, pixels, 3); equal arguments give equal bytes.
    """
    behind = _texture(scene, pixels)
    saturated = np.array(hsv_to_rgb((COLOURS.index(scene.colour) / 6 + scene.hue / 360) % 1, 0.92, scene.value))
    dx, dy = _STEPS[scene.direction]
    video = np.empty((len(times), pixels, pixels, 3), np.uint8)
    for index, time in enumerate(times):
        way = scene.travel * (time + scene.speed_change * np.sin(2 * np.pi * time) / (2 * np.pi))
        centre = (scene.start[0] + dx * way, scene.start[1] + dy * way)
        cover = draw(scene.shape, centre, scene.size, pixels)[..., None]
        video[index] = np.rint(255 * (behind * (1 - cover) + saturated * cover))
    return video


def draw(shape: Shape, centre: tuple[float, float], size: float, pixels: int) -> np.ndarray:
    """Return how much of each pixel the shape covers: (pixels, pixels), 0 to 1, with edges one pixel soft.

    `centre` (x, y) and `size` are shares of the side; the shape fills a square of side `size`.
    """
    places = (np.arange(pixels) + 0.5) / pixels
    x, y = places[None, :] - centre[0], places[:, None] - centre[1]
    half = size / 2
    match shape:
        case "circle":
            outside = np.hypot(x, y) - half
        case "square":
            outside = np.maximum(abs(x), abs(y)) - half
        case "cross":
            arm = half / 2.6
            outside = np.minimum(np.maximum(abs(x) - half, abs(y) - arm), np.maximum(abs(x) - arm, abs(y) - half))
        case "triangle":
            # sides from the middle of the top to the lower corners: 2|x| - y = half
            outside = np.maximum(y - half, (2 * abs(x) - y - half) / np.sqrt(5))
    return np.clip(0.5 - outside * pixels, 0, 1)


def _texture(scene: Scene, pixels: int) -> np.ndarray:
    """Return a grey, faintly tinted, smooth texture, or none: (pixels, pixels, 3), 0 to 1."""
    random = np.random.default_rng(scene.texture_seed)
    places = (np.arange(pixels) + 0.5) / pixels
    angle = random.uniform(0, np.pi)
    x, y = np.broadcast_arrays(places[None, :], places[:, None])
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    match scene.background:
        case "cloudy":
            grid = random.uniform(-1, 1, (6, 6)).astype(np.float32)
            pattern = 1.3 * cv2.resize(grid, (pixels, pixels), interpolation=cv2.INTER_CUBIC)
        case "striped":
            pattern = np.sin(2 * np.pi * (random.uniform(2.5, 5) * along + random.uniform()))
        case "checkered":
            count = random.uniform(1.5, 3)
            across_wave = np.sin(2 * np.pi * count * across)
            pattern = np.tanh(3 * across_wave * np.sin(2 * np.pi * (count * along + random.uniform())))
        case "spotted":
            spots = random.uniform(0, 1, (14, 2))
            radius = random.uniform(0.04, 0.08)
            glow = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * radius**2)) for a, b in spots)
            pattern = 2 * np.tanh(glow) - 1
        case "shaded":
            pattern = 2 * (along - along.min()) / np.ptp(along) - 1
        case "plain":
            pattern = np.zeros((pixels, pixels))
    brightness, contrast = random.uniform(0.3, 0.7), random.uniform(0.08, 0.2)
    grey = np.clip(brightness + contrast * pattern, 0.02, 0.98)
    tint = np.array(hsv_to_rgb(random.uniform(), random.uniform(0, 0.12), 1.0))
    return grey[..., None] * tint


class Verdict(NamedTuple):
    """What the judge sees in a video; None where it sees no saturated object."""

    colour: Colour | None
    shape: Shape | None
    direction: Direction | None
    """None also when the object does not move."""
    moved: bool
    confidence: float
    """How far the outline is from being judged another shape, 0 to 1."""
    concentration: float
    """Share of the vivid colour of all frames that is in the largest connected part of each."""
    continuity: float
    """Least overlap of the objects of neighbouring frames, 0 to 1 (`objects.continuity`); 0 where a frame has none."""
    keeps_form: bool
    """The first and the second half of the frames show the same shape in the same size."""

    @property
    def is_one_object(self) -> bool:
        return self.concentration >= ONE_OBJECT

    @property
    def is_same_object(self) -> bool:
        return self.continuity >= SAME_OBJECT and self.keeps_form


_MIN_CHROMA = 0.2
"""Chroma an object must reach against the background; the corpus' shapes have 0.7 and more, its tints 0.1."""
_MIN_FRAMES = 0.5
"""Share of the frames that must show the object."""
_MIN_TRAVEL = 0.1
"""Way from first to last frame, in sides of the picture, that counts as moving; the corpus has 0.3 and more."""
_SHARP: dict[Shape, float] = {"triangle": 0.64, "square": 0.43, "cross": 0.46}
"""Angular moment of each sharp outline (third of a triangle, fourth of the others); blur makes it smaller."""
_MIN_CORNERS: dict[Shape, float] = {"triangle": 0.3, "square": 0.42, "cross": 0.1}
"""Share of the sharp outline's moment below which an object has no such corners; a circle has none. They lie between
what the embedded VAE makes of circles, which its 8-pixel grid pulls towards squares, and of the shape itself."""
ONE_OBJECT = 0.9
"""Concentration from which a video shows one object (docs/judge.md)."""
SAME_OBJECT = 0.5
"""Continuity from which it is the same object through all frames, if it keeps its form (docs/judge.md)."""
_NOTHING = Verdict(None, None, None, moved=False, confidence=0.0, concentration=0.0, continuity=0.0, keeps_form=False)


def judge(video: np.ndarray) -> Verdict:
    """Say which shape of which colour moves where, from pixels alone.

    Object: pixels whose chroma, against the video's median, is above half of the strongest (99th percentile);
    of the hue that most of them vote for; of these the largest connected part of each frame. Direction: the line
    through its centres (Theil-Sen, which up to 29 % of stray frames do not turn). Shape: the angular moments
    sum(z^k) / sum(|z|^k) around the centre, which keep their sign under blur, where outlines melt into circles:
    k = 3 is large for the triangle, k = 4 is positive for the cross, whose arms lie on the axes, and negative
    for the square, whose corners lie between them.

    Args:
        video: uint8 RGB (T, H, W, 3).

    Raises:
        ValueError: the array is not such a video.
    """
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or not video.size:
        raise ValueError(f"judge: got {video.dtype} {video.shape}, takes uint8 of shape (T, H, W, 3)")
    hues = video.astype(np.float32) / 255 @ np.exp(2j * np.pi * np.arange(3) / 3).astype(np.complex64)
    hues -= np.median(hues.real) + 1j * np.median(hues.imag)
    chroma = abs(hues)
    peak = np.percentile(chroma, 99)
    if peak < _MIN_CHROMA:
        return _NOTHING
    vivid = chroma > peak / 2
    sixths = np.rint(np.angle(hues) / (np.pi / 3)).astype(int) % len(COLOURS)
    colour = int(np.bincount(sixths[vivid], weights=chroma[vivid]).argmax())
    towards = hues[vivid & (sixths == colour)].sum()
    along = (hues * np.conj(towards / abs(towards))).real
    cover = np.clip(along / peak, 0, 1)

    parts = {n: part for n, frame in enumerate(cover) if (part := largest_part(frame)) is not None}
    within = sum(int((vivid[n] & (part > 0)).sum()) for n, part in parts.items())
    if len(parts) < _MIN_FRAMES * len(video):
        return _NOTHING
    numbers, centres = np.array(list(parts)), np.array([centre_of(part) for part in parts.values()])
    travel = _slope(numbers, centres) * (len(video) - 1) / np.array([video.shape[2], video.shape[1]])
    moved = bool(abs(travel).max() >= _MIN_TRAVEL)
    shape, confidence = _shape(list(parts.values()))
    direction = _direction(travel) if moved else None
    concentration = within / int(vivid.sum())
    return Verdict(
        COLOURS[colour],
        shape,
        direction,
        moved,
        confidence,
        concentration,
        *_constancy(list(parts.values()), len(video)),
    )


def _constancy(parts: list[np.ndarray], frames: int) -> tuple[float, bool]:
    """Return continuity, and whether the form is kept; `parts` are those of the frames that show the object."""
    if len(parts) < frames:
        return 0.0, False
    first, second = parts[: frames // 2], parts[frames // 2 :]
    keeps_form = not first or (_shape(first)[0] == _shape(second)[0] and keeps_size(first, second))
    return continuity(parts), keeps_form


def _slope(numbers: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the median over pairs of frames of the movement (x, y) per frame; zero for a single frame."""
    if len(numbers) < 2:
        return np.zeros(2)
    first, second = np.triu_indices(len(numbers), k=1)
    return np.median((centres[second] - centres[first]) / (numbers[second] - numbers[first])[:, None], axis=0)


def _direction(travel: np.ndarray) -> Direction:
    if abs(travel[0]) >= abs(travel[1]):
        return "right" if travel[0] > 0 else "left"
    return "down" if travel[1] > 0 else "up"


def _shape(parts: list[np.ndarray]) -> tuple[Shape, float]:
    """Return the shape that the parts of all frames together have, and the confidence in it."""
    moments: dict[int, complex] = {}
    for order in (3, 4):
        powers, lengths = 0j, 0.0
        for part in parts:
            x, y = centre_of(part)
            z = (np.arange(part.shape[1]) - x)[None, :] - 1j * (np.arange(part.shape[0]) - y)[:, None]
            powers += (part * z**order).sum()
            lengths += (part * abs(z) ** order).sum()
        moments[order] = powers / lengths
    # a corner upwards, at z = i, has z^3 = -i
    found: dict[Shape, float] = {"triangle": -moments[3].imag, "square": -moments[4].real, "cross": moments[4].real}
    corners = {shape: found[shape] / sharp for shape, sharp in _SHARP.items()}
    best = max(corners, key=lambda shape: corners[shape] / _MIN_CORNERS[shape])
    if corners[best] < _MIN_CORNERS[best]:
        return "circle", float(min(1.0, 1 - corners[best] / _MIN_CORNERS[best]))
    return best, float(min(1.0, (corners[best] - _MIN_CORNERS[best]) / (1 - _MIN_CORNERS[best])))
