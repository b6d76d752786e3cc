"""Captioner `describe`: a plain sentence from what was measured of a clip."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from tasks.captions.captioner import Said
from tasks.storage import fields, tables

_STILL = 0.15  # motion, per cent of the diagonal per frame, below which a clip is called still
_FAST = 1.5  # motion, likewise, from which it is called fast


@fields.columns_of(tables.CLIPS)
class Measured(NamedTuple):
    """What a description says of a clip."""

    width: int
    height: int
    orientation: str
    colours: list[str]
    brightness: float
    motion: float
    motion_x: float
    motion_y: float


class Describe:
    """A plain sentence from what was measured: brightness, shape of the picture, main colours, motion."""

    name = "describe"
    columns: Sequence[str] = Measured._fields
    made_with: Mapping[str, Any] = MappingProxyType({})

    def caption(self, clips: list[dict[str, Any]]) -> list[Said | None]:
        """Return a sentence for every clip."""
        return [Said(describe(clip)) for clip in fields.take_all(Measured, clips)]


def describe(clip: Measured) -> str:
    """Return e.g. "a dark landscape video, 640 by 272 pixels, mostly grey, moving fast to the left"."""
    brightness = "dark" if clip.brightness < 0.25 else "bright" if clip.brightness > 0.65 else "evenly lit"
    article = "an" if brightness[0] == "e" else "a"
    colours = clip.colours
    listed = " and ".join([", ".join(colours[:-1]), colours[-1]] if len(colours) > 1 else colours)
    size = f"{clip.width} by {clip.height} pixels"
    return f"{article} {brightness} {clip.orientation} video, {size}, mostly {listed}, {movement(clip)}"


def movement(clip: Measured) -> str:
    """Say how much moves, and where to unless it goes several ways at once."""
    if clip.motion < _STILL:
        return "almost still"
    # per cent of the width and of the height are no common measure; the picture's own sides make them one
    x, y = clip.motion_x * clip.width, clip.motion_y * clip.height
    amount = "slowly" if clip.motion < _FAST else "fast"
    diagonal = (clip.width**2 + clip.height**2) ** 0.5
    if (x * x + y * y) ** 0.5 < 0.5 * clip.motion * diagonal:
        return f"moving {amount} in several directions"
    if abs(x) >= abs(y):
        return f"moving {amount} to the {'right' if x > 0 else 'left'}"
    return f"moving {amount} {'down' if y > 0 else 'up'}"
