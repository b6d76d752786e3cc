"""Objects of the procedural set, and what is drawn for each: a solid, a texture, colours and a pose.

A texture is a function of a point of the solid, so that every solid can wear each, and it repeats around the vertical
axis: what a view hides can be told from what it shows, and how far an object is turned, too.
"""

from itertools import permutations
from typing import NamedTuple

import numpy as np

from tasks.views.settings import Colour, Solid, Texture, ViewSettings

COLOURS: dict[Colour, tuple[int, int, int]] = {
    "red": (220, 18, 18),
    "orange": (240, 147, 43),
    "yellow": (220, 220, 18),
    "green": (18, 220, 18),
    "cyan": (18, 220, 220),
    "blue": (18, 18, 220),
    "magenta": (220, 18, 220),
    "black": (45, 45, 50),
}
"""sRGB, by their names."""
COLOURS_OF: dict[Texture, int] = {"sectors": 2, "spiral": 2, "checks": 2, "faces": 3}
"""That a texture takes."""


class Scene(NamedTuple):
    """One object."""

    solid: Solid
    texture: Texture
    colours: tuple[Colour, ...]
    """As many as the texture takes. With solid and texture they are the object's kind."""
    yaw: float
    """Degrees by which it is turned about its vertical axis, counter-clockwise seen from above."""
    size: float
    """Of what it has at its largest."""


def scenes(settings: ViewSettings) -> tuple[list[Scene], list[Scene]]:
    """Return the objects of the training and the held-out ones, which are of other kinds; the same for the same seed.

    Raises:
        ValueError: there are fewer kinds than objects that are held out.
    """
    kinds = [
        (solid, texture, colours)
        for solid in settings.solids
        for texture in settings.textures
        for colours in permutations(settings.colours, COLOURS_OF[texture])
    ]
    if settings.held_out >= len(kinds):
        raise ValueError(
            f"views.held_out is {settings.held_out}, but there are {len(kinds)} kinds of objects (solids x textures x "
            "colours): hold out fewer"
        )
    random = np.random.default_rng(settings.seed)
    random.shuffle(kinds)
    apart, rest = kinds[: settings.held_out], kinds[settings.held_out :]
    training = [rest[number % len(rest)] for number in range(settings.objects)]
    made = [Scene(*kind, random.uniform(*settings.yaw), random.uniform(*settings.size)) for kind in training + apart]
    return made[: settings.objects], made[settings.objects :]


def painted(scene: Scene, points: np.ndarray) -> np.ndarray:
    """Return the colours, from 0 to 1, float64 (N, 3), of points of the solid in its own frame, float64 (N, 3)."""
    around = np.arctan2(points[:, 1], points[:, 0]) / (2 * np.pi)  # turns
    match scene.texture:
        case "sectors":
            which = np.floor(4 * around) % 2
        case "spiral":
            which = np.floor(4 * around + points[:, 2]) % 2
        case "checks":
            which = (np.floor(4 * around) + (points[:, 2] > 0)) % 2
        case "faces":  # opposite ones are alike
            which = np.abs(points).argmax(axis=1)
    palette = np.array([COLOURS[name] for name in scene.colours]) / 255
    return palette[which.astype(np.int64)]
