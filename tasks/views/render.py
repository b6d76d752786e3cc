"""Pictures of objects by ray casting against the solids themselves: exact, and the same bytes everywhere.

Lengths are in units in which the solids fill the ball of radius 1 around the origin. The camera stands at DISTANCE from
it and looks at it, upright; x goes to the right of a picture and y down.

Shapes: N rays or points, P pixels of a side.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from stiv_model.diffusion.cameras import CAMERAS, Camera
from tasks.views.scene import Scene, painted
from tasks.views.settings import Solid, ViewSettings

DISTANCE = 4.5
FIELD_OF_VIEW = 30.0
"""Degrees, of height and width."""
_AMBIENT = 0.7
_LIGHT = np.array([0.62, -0.35, 0.70])
"""Whence the light comes, from the side of the given view; it stays with the object as the camera goes round."""
_NEVER = np.inf


class Frame(NamedTuple):
    """Where a camera stands and how it is turned, float64 (3,) each."""

    place: np.ndarray
    right: np.ndarray
    up: np.ndarray
    forward: np.ndarray


class Hits(NamedTuple):
    """Where rays meet a solid first."""

    distance: np.ndarray
    """(N,) along each ray; infinite where it misses."""
    normal: np.ndarray
    """(N, 3) outwards, of length 1; anything where it misses."""


def frame_of(camera: Camera) -> Frame:
    """Return where a camera stands: azimuth 0 on the axis x, counter-clockwise seen from above, z upwards."""
    elevation, azimuth = np.radians([camera.elevation, camera.azimuth])
    outwards = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    return Frame(DISTANCE * outwards, right, np.cross(outwards, right), -outwards)


def project(points: np.ndarray, camera: Camera, pixels: int) -> np.ndarray:
    """Return where points, float64 (N, 3), are seen: x and y, float64 (N, 2), from the picture's upper left corner."""
    frame = frame_of(camera)
    seen = points - frame.place
    depth = seen @ frame.forward
    plane = np.stack([seen @ frame.right, -(seen @ frame.up)], axis=1) / depth[:, None]
    return (plane / np.tan(np.radians(FIELD_OF_VIEW) / 2) + 1) * pixels / 2


def rays(camera: Camera, pixels: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where rays through the picture start, float64 (3,), and go, float64 (N, 3) of length 1, row by row."""
    frame = frame_of(camera)
    side = pixels * samples
    at = ((np.arange(side) + 0.5) / side * 2 - 1) * np.tan(np.radians(FIELD_OF_VIEW) / 2)
    x, y = np.meshgrid(at, at)
    towards = frame.forward + x[..., None] * frame.right - y[..., None] * frame.up
    directions = towards.reshape(-1, 3)
    return frame.place, directions / np.linalg.norm(directions, axis=1, keepdims=True)


class _Near(NamedTuple):
    """Of one ray for each pixel, those that can meet an object."""

    pixels: np.ndarray
    """(N,) in which they end, counted row by row."""
    directions: np.ndarray
    """float64 (N, 3)."""


@lru_cache(maxsize=1 + len(CAMERAS))
def _near(camera: Camera, pixels: int, samples: int, radius: float) -> tuple[np.ndarray, tuple[_Near, ...]]:
    """Return where rays start, and those through the ball around the object, a part for each sample of a pixel.

    They are the same for all objects; parts of this size stay in the processor's cache.
    """
    start, directions = rays(camera, pixels, samples)
    is_near = start @ start - (directions @ start) ** 2 < radius**2
    grid = np.arange(len(directions)).reshape(pixels, samples, pixels, samples)
    parts = []
    for row in range(samples):
        for column in range(samples):
            numbers = grid[:, row, :, column].ravel()
            inside = np.flatnonzero(is_near[numbers])
            parts.append(_Near(inside, directions[numbers[inside]]))
    return start, tuple(parts)


def render(scene: Scene, camera: Camera, settings: ViewSettings) -> np.ndarray:
    """Return a picture of an object before plain grey, uint8 RGB (P, P, 3)."""
    side, behind = settings.pixels, settings.background / 255
    start, parts = _near(camera, side, settings.samples, max(1.0, scene.size))
    turned = _turn(-scene.yaw)
    own_start = turned @ start / scene.size
    light = turned @ (_LIGHT / np.linalg.norm(_LIGHT))
    added = np.zeros((side**2, 3))  # to the background
    for part in parts:
        own_directions = part.directions @ turned.T
        found = hits(scene.solid, own_start, own_directions)
        met = np.flatnonzero(np.isfinite(found.distance))
        points = own_start + found.distance[met, None] * own_directions[met]
        brightness = _AMBIENT + (1 - _AMBIENT) * np.clip(found.normal[met] @ light, 0, None)
        added[part.pixels[met]] += painted(scene, points) * brightness[:, None] - behind
    mean = behind + added / len(parts)
    return np.round(255 * mean).astype(np.uint8).reshape(side, side, 3)


def all_views(scene: Scene, settings: ViewSettings) -> np.ndarray:
    """Return the given view and those from the paper's cameras, uint8 RGB (7, P, P, 3)."""
    cameras = (Camera(settings.elevation, 0.0), *CAMERAS)
    return np.stack([render(scene, camera, settings) for camera in cameras])


def _turn(degrees: float) -> np.ndarray:
    """Return the matrix that turns about the vertical axis."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


# ------------------------------------------------------------------------------------------------- solids

_HALF_CUBE = 1 / np.sqrt(3)
_BASE = 2 / 3  # of pyramid and cone: how far below the middle the base lies
_RADIUS = np.sqrt(1 - _BASE**2)  # so that its edge, or its corners, lie on the ball
_CYLINDER_RADIUS = 0.65
_CYLINDER_HALF = np.sqrt(1 - _CYLINDER_RADIUS**2)


def hits(solid: Solid, start: np.ndarray, directions: np.ndarray) -> Hits:
    """Return where rays from `start`, float64 (3,), outside of the solid, along `directions`, (N, 3), meet it first."""
    match solid:
        case "sphere":
            return _sphere(start, directions)
        case "cube":
            return _polyhedron(*_CUBE, start, directions)
        case "pyramid":
            return _polyhedron(*_PYRAMID, start, directions)
        case "cylinder":
            return _round(start, directions, _CYLINDER_RADIUS, 0.0, -_CYLINDER_HALF, _CYLINDER_HALF)
        case "cone":
            slope = _RADIUS / (1 + _BASE)
            return _round(start, directions, slope, -slope, -_BASE, 1.0)


def _sphere(start: np.ndarray, directions: np.ndarray) -> Hits:
    along = directions @ start
    root = along**2 - (start @ start - 1)
    distance = np.where(root >= 0, -along - np.sqrt(np.maximum(root, 0)), _NEVER)
    reached = np.where(np.isfinite(distance), distance, 0.0)
    return Hits(distance, start + reached[:, None] * directions)


def _polyhedron(normals: np.ndarray, offsets: np.ndarray, start: np.ndarray, directions: np.ndarray) -> Hits:
    """Meet the half spaces `normals` (K, 3) x <= `offsets` (K,): in by the last that is entered, before any is left."""
    speed = directions @ normals.T
    with np.errstate(divide="ignore"):
        at = (offsets - normals @ start) / speed
    entered = np.where(speed < 0, at, -_NEVER)
    left = np.where(speed > 0, at, _NEVER)
    face = entered.argmax(axis=1)
    distance = entered.max(axis=1)
    return Hits(np.where(distance < left.min(axis=1), distance, _NEVER), normals[face])


def _round(start: np.ndarray, directions: np.ndarray, radius: float, slope: float, low: float, high: float) -> Hits:
    """Meet a solid of revolution of which the radius at height z is radius + slope z, between two heights."""
    across, own = directions[:, :2], start[:2]
    wide, growing = radius + slope * start[2], slope * directions[:, 2]
    a = (across**2).sum(axis=1) - growing**2
    b = across @ own - wide * growing
    c = own @ own - wide**2
    root = b**2 - a * c
    candidates = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for sign in (-1, 1):
            distance = (-b + sign * np.sqrt(np.maximum(root, 0))) / a
            height = start[2] + distance * directions[:, 2]
            is_side = (root >= 0) & (distance > 0) & (low <= height) & (height <= high)
            candidates.append(np.where(is_side & (radius + slope * height >= 0), distance, _NEVER))
        for height in (low, high):
            distance = (height - start[2]) / directions[:, 2]
            there = own + distance[:, None] * across
            is_cap = (distance > 0) & ((there**2).sum(axis=1) <= (radius + slope * height) ** 2)
            candidates.append(np.where(is_cap, distance, _NEVER))
    met = np.stack(candidates)
    which, distance = met.argmin(axis=0), met.min(axis=0)
    reached = np.where(np.isfinite(distance), distance, 0.0)
    points = start + reached[:, None] * directions
    outwards = np.concatenate([points[:, :2], -slope * np.hypot(points[:, 0], points[:, 1])[:, None]], axis=1)
    outwards /= np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1e-12)
    normals = np.where(
        (which == 2)[:, None], [0.0, 0.0, -1.0], np.where((which == 3)[:, None], [0.0, 0.0, 1.0], outwards)
    )
    return Hits(distance, normals)


def _pyramid() -> tuple[np.ndarray, np.ndarray]:
    """Return the planes of a pyramid on a square, whose corners and top lie on the ball."""
    half = _RADIUS / np.sqrt(2)  # of the base's side
    steep = np.array([1 + _BASE, 0.0, half])
    steep /= np.linalg.norm(steep)
    sides = [_turn(90 * quarter) @ steep for quarter in range(4)]
    return np.array([*sides, [0.0, 0.0, -1.0]]), np.array([steep[2]] * 4 + [_BASE])


_CUBE = np.concatenate([np.eye(3), -np.eye(3)]), np.full(6, _HALF_CUBE)
_PYRAMID = _pyramid()
