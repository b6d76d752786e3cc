"""The shots that benchmarks/stability.py encodes: real ones, real ones with something done to them, and drawn ones."""

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from flows.params import Params
from tasks.decoding import cuts, decode
from tasks.decoding.limits import Limits
from tasks.demo import shapes
from tasks.videos import shot_rules

log = logging.getLogger(__name__)

FRAMES = 48
_LEAST_FRAMES = 30
_TRIMMED = 2  # frames at each end, which the encoder may have blended with the neighbours
_SHAPES_PIXELS = 512
_TEXT = ("the ducks land", "on a lake near", "the old mill")
_TEXT_HEIGHTS = (0.06, 0.08, 0.11, 0.14)  # of a line, as a share of the picture's height


class Shot(NamedTuple):
    """Frames without a cut."""

    name: str
    frames: list[np.ndarray]
    """BGR, uint8 (height, width, 3), both sides multiples of 4: half the size has even sides too."""


def limits_of(params: Params) -> Limits:
    return Limits(**{field: getattr(params.sandbox, field) for field in Limits._fields})


def rate_of(path: Path, params: Params) -> float:
    """Return the frames per second that the file says."""
    with decode.open_video(str(path), limits_of(params)) as opened:
        return float(decode.frame_rate(opened))


def real(path: Path, params: Params, most: int) -> Iterator[Shot]:
    """Give the beginning of up to `most` shots of a video, evenly spread over it."""
    rules = shot_rules.rules_of(params.shots)
    found = cuts.split(str(path), limits_of(params), claimed_frames=0, fps=rate_of(path, params), **rules)
    starts, first = [], 0
    for row in found["shots"]:
        if row["status"] == "ok" and row["frames"] >= _LEAST_FRAMES + 2 * _TRIMMED:
            starts.append((first + _TRIMMED, min(FRAMES, row["frames"] - 2 * _TRIMMED)))
        first += row["frames"]
    if not starts:
        log.warning("%s: no shot of %d frames (%s)", path.name, _LEAST_FRAMES, found["reason"])
    for number in np.unique(np.linspace(0, len(starts) - 1, min(most, len(starts))).round().astype(int)):
        start, count = starts[number]
        yield Shot(f"{path.stem} at {start}", frames(path, start, count))


def frames(path: Path, start: int, count: int) -> list[np.ndarray]:
    """Return `count` frames of a video from frame `start` on, cropped to multiples of 4."""
    with av.open(str(path)) as container:
        wanted = islice(container.decode(video=0), start, start + count)
        return [_cropped(frame.to_ndarray(format="bgr24")) for frame in wanted]


def _cropped(frame: np.ndarray) -> np.ndarray:
    height, width = (side // 4 * 4 for side in frame.shape[:2])
    return frame[:height, :width]


def drawn(number: int) -> Shot:
    """Return a shot of the generated corpus, at 512 x 512."""
    scene = shapes.scene(0, number, held_out=False)
    return Shot(f"shapes {number}", [frame[..., ::-1].copy() for frame in shapes.render(scene, _SHAPES_PIXELS, FRAMES)])


def titled(shot: Shot, number: int) -> Shot:
    """Write one to three lines of white, black-rimmed text over a shot; their number and height go by `number`."""
    lines, share = 1 + number % len(_TEXT), _TEXT_HEIGHTS[number % len(_TEXT_HEIGHTS)]
    return Shot(f"{shot.name}, {lines} lines of {share:.0%}", [written(frame, lines, share) for frame in shot.frames])


def written(frame: np.ndarray, lines: int, share: float) -> np.ndarray:
    """Return a BGR picture with up to three lines of text, each line's letters of this share of its shorter side."""
    out, letter = frame.copy(), share * min(frame.shape[:2])
    for line, text in enumerate(_TEXT[:lines]):
        place = (int(0.05 * frame.shape[1]), int(frame.shape[0] - (2 * (lines - line) - 1) * letter))
        for colour, thickness in (((0, 0, 0), letter / 4), ((255, 255, 255), letter / 9)):
            size, pen = letter / 22, max(1, round(thickness))
            cv2.putText(out, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, pen, cv2.LINE_AA)
    return out


def letterboxed(frame: np.ndarray, index: int) -> np.ndarray:
    out, bar = frame.copy(), frame.shape[0] // 8
    out[:bar] = out[-bar:] = 0
    return out


def lit_by_a_lamp(frame: np.ndarray, index: int) -> np.ndarray:
    return cv2.convertScaleAbs(frame, alpha=(0.85, 1.0, 0.95)[index % 3])


CHANGES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "letterboxed": letterboxed,
    "flickering": lit_by_a_lamp,
    "blurred": lambda frame, index: cv2.GaussianBlur(frame, (0, 0), frame.shape[1] / 256),
    "dark": lambda frame, index: cv2.convertScaleAbs(frame, alpha=0.3),
}


def changed(shot: Shot, name: str) -> Shot:
    """Return the shot with one of CHANGES done to every frame."""
    return Shot(f"{shot.name}, {name}", [CHANGES[name](frame, index) for index, frame in enumerate(shot.frames)])


def repeated(shot: Shot) -> Shot:
    """Return the shot with every second frame shown twice in place of the next."""
    return Shot(f"{shot.name}, frames repeated", [shot.frames[index - index % 2] for index in range(len(shot.frames))])
