"""How the embedded videos of shapes look, in what of it can be chosen."""

from typing import Literal, NamedTuple, get_args

Background = Literal["cloudy", "striped", "spotted", "checkered", "shaded", "plain"]
BACKGROUNDS: tuple[Background, ...] = get_args(Background)

MARGIN = 0.02
"""Smallest distance of the object from the edge of the picture. Lengths are shares of the picture's side."""
SMALLEST, LARGEST = 0.25, 0.65
"""Sizes of an object between which the judge is right, also after the embedded VAE (docs/judge.md)."""
SHORTEST = 0.2
"""Way from the first to the last frame: the judge wants half of it, of which the frames of a clip show a part."""


class Look(NamedTuple):
    """What scenes are drawn from. All sizes, ways and backgrounds within are equally likely."""

    size: tuple[float, float]
    """Smallest and largest side of the square that the object fills."""
    travel: tuple[float, float]
    """Shortest and longest way of the object from the first to the last frame."""
    backgrounds: tuple[Background, ...]
    start: float = 0.0
    """Least distance, in the first frame, of the centre from the edge that the object moves away from."""
    across: tuple[float, float] = (0.0, 1.0)
    """Between which the centre lies across the way, as far as the object stays in the picture."""


TEXTURED = Look(size=(0.25, 0.42), travel=(0.3, 0.5), backgrounds=BACKGROUNDS[:-1])
"""What the embedded VAE learnt from: small objects over every background but the plain one."""
