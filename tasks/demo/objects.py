"""The object in each frame of a video: where it is, and whether it stays the same. Knows no shapes."""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

_MIN_AREA = 0.01
"""Share of the picture an object must fill; the smallest shape fills 0.02."""
_MAX_JUMP = 1.0
"""Way between two frames, in sides of a square of the object's area, beyond which it is another object."""
_MIN_AREA_KEPT = 2 / 3


def largest_part(cover: np.ndarray) -> np.ndarray | None:
    """Return one frame's cover (H, W), 0 outside its largest connected part; None if that part is too small."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats((cover > 0.5).astype(np.uint8))
    areas = statistics[1:, cv2.CC_STAT_AREA]
    if count == 1 or areas.max() < _MIN_AREA * cover.size:
        return None
    inside = (labels == 1 + areas.argmax()).astype(np.uint8)
    # one pixel more: the soft edge belongs to the object
    return cover * cv2.dilate(inside, np.ones((3, 3), np.uint8))


def centre_of(part: np.ndarray) -> tuple[float, float]:
    """Return the centre of gravity (x, y) of a part (H, W), pixels."""
    moments = cv2.moments(part)
    return moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]


def continuity(parts: Sequence[np.ndarray]) -> float:
    """Say how far the object of each frame goes on as that of the next: 1 for the same outline and strength of colour.

    Two neighbouring frames' parts are laid upon each other by their centres; intersection over union is the sum of the
    smaller values over the sum of the larger ones. The least over all neighbours counts. An object that jumps further
    than its own side is another one: 0.

    Args:
        parts: of each frame in turn, as `largest_part` returns them, (H, W) each.
    """
    centres = np.array([centre_of(part) for part in parts])
    side = np.sqrt(np.mean([part.sum() for part in parts]))
    if (np.linalg.norm(np.diff(centres, axis=0), axis=1) > _MAX_JUMP * side).any():
        return 0.0
    height, width = parts[0].shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    aligned = [
        cv2.warpAffine(part, np.column_stack([np.eye(2), middle - centre]), (width, height))
        for part, centre in zip(parts, centres, strict=True)
    ]
    overlaps = (np.minimum(a, b).sum() / np.maximum(a, b).sum() for a, b in pairwise(aligned))
    return float(min(overlaps, default=1.0))


def keeps_size(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> bool:
    """Say whether the mean areas of two stretches of frames differ by a third at most."""
    areas = [np.mean([part.sum() for part in parts]) for parts in (first, second)]
    return bool(min(areas) >= _MIN_AREA_KEPT * max(areas))
