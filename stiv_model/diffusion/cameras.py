"""From where multi-view looks at an object (paper, section 5 and appendix J.3)."""

from typing import NamedTuple


class Camera(NamedTuple):
    """A place on a sphere around an object, from which its middle is seen in the picture's."""

    elevation: float
    """Degrees above the object's equator."""
    azimuth: float
    """Degrees around the object, counter-clockwise seen from above; 0 is that of the given view."""


CAMERAS = tuple(
    Camera(elevation, azimuth) for elevation, azimuth in zip((30, -20) * 3, range(30, 360, 60), strict=True)
)
"""Of the six views that are made, in their order."""
GIVEN_FRAMES = 2
"""That the given view fills: all of the first temporal token."""
FRAMES = GIVEN_FRAMES + len(CAMERAS)
"""Of a sample of multi-view."""
GUIDANCE_SCALE = 3.5
"""With which the views are made."""
