"""Find the shots of one video, and measure them, in a single decoding pass. Runs behind the fence only.

PySceneDetect's detectors are called frame by frame with pictures that `tasks/decode.py` decoded; its own
readers open files without any restriction on protocols. Detecting counts in frames; shots have timestamps.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import ContentDetector, ThresholdDetector

from tasks import decode, measures

_MIN_ANALYSIS_PIXELS = 48  # of the shorter side: the motion estimator's patches need that much


class Rules(NamedTuple):
    """The fields of ShotSettings that decide about one video, with its frame rate."""

    content_threshold: float
    fade_threshold: float
    min_seconds: float
    max_seconds: float
    motion_every: int
    stills: int
    fps: float

    @property
    def measure_every(self) -> int:
        """Frames from one measured pair to the next; every shot long enough to be kept holds at least one."""
        return max(1, min(self.motion_every, int(self.fps * self.min_seconds / 2)))

    @property
    def still_every(self) -> int:
        """Frames between candidates for stills at first; every shot long enough to be kept holds enough."""
        return max(1, int(self.fps * self.min_seconds / self.stills))

    @property
    def max_still_every(self) -> int:
        """A shot that is split evenly at max_seconds still has enough candidates in every part."""
        return max(1, int(self.fps * self.max_seconds / (4 * self.stills)))


class Cuts:
    """Hard cuts and fades through black, frame by frame."""

    def __init__(self, rules: Rules) -> None:
        # min_scene_len 0: what is too short is decided, and accounted for, in `shots_of`
        self._hard = ContentDetector(threshold=rules.content_threshold, min_scene_len=0)
        self._fade = ThresholdDetector(threshold=rules.fade_threshold, min_scene_len=0)
        self._fps = rules.fps

    def after(self, index: int, picture: np.ndarray) -> list[tuple[int, str]]:
        """Return (frame, transition) of each shot now known to begin, in order; a fade is known when over."""
        time = FrameTimecode(index, fps=self._fps)
        found = {cut.frame_num: "fade" for cut in self._fade.process_frame(time, picture)}
        found |= {cut.frame_num: "cut" for cut in self._hard.process_frame(time, picture)}
        return sorted(found.items())


@dataclass
class Piece:
    """What lies between two transitions: frames `first` up to `end`."""

    first: int
    transition: str
    rules: Rules
    end: int = -1
    still_every: int = 1
    measured: list[tuple[int, dict[str, float]]] = field(default_factory=list)  # (frame, values)
    stills: list[tuple[int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.still_every = self.rules.still_every

    def offer(self, index: int, picture: np.ndarray) -> None:
        """Keep the picture if it is one of those that lie evenly over the piece so far."""
        if (index - self.first) % self.still_every:
            return
        self.stills.append((index, measures.jpeg(picture)))
        if len(self.stills) > 4 * self.rules.stills and 2 * self.still_every <= self.rules.max_still_every:
            self.stills = self.stills[::2]
            self.still_every *= 2

    def close(self, end: int, transition: str) -> "Piece":
        """End the piece at frame `end`; return the one that begins there, with what is known of it."""
        following = Piece(end, transition, self.rules)
        following.measured = [entry for entry in self.measured if entry[0] >= end]
        following.stills = [entry for entry in self.stills if entry[0] >= end]
        # a pair of frames is measured at its second one: at the first frame of a piece it spans the cut
        self.measured = [entry for entry in self.measured if self.first < entry[0] < end]
        self.stills = [entry for entry in self.stills if entry[0] < end]
        self.end = end
        return following

    def parts(self, seconds: float) -> Iterator["Piece"]:
        """Give the piece itself, or even parts of at most max_seconds."""
        count = max(1, int(np.ceil(seconds / self.rules.max_seconds)))
        bounds = [self.first + (self.end - self.first) * part // count for part in range(count + 1)]
        rest = self
        end = self.end
        for bound in bounds[1:-1]:
            following = rest.close(bound, "split")
            yield rest
            rest = following
        rest.close(end, "")
        yield rest

    def summary(self) -> dict[str, float | None]:
        """Return the mean of everything measured, null where the piece holds no measured pair."""
        names = (
            "motion",
            "motion_x",
            "motion_y",
            "clarity",
            "temporal_consistency",
            "brightness",
            "saturation",
        )
        values = [entry for _, entry in self.measured]
        return {name: float(np.mean([value[name] for value in values])) if values else None for name in names}

    def chosen_stills(self) -> list[str]:
        """Return `stills` of the candidates, at even distances from the ends of the piece, as base64."""
        count = min(self.rules.stills, len(self.stills))
        at = [(2 * place + 1) * len(self.stills) // (2 * count) for place in range(count)]
        return [base64.b64encode(self.stills[place][1]).decode() for place in at]


def analysis_size(width: int, height: int, analysis_pixels: int) -> tuple[int, int]:
    """Return the width and height at which a video is analysed; never larger than it is, but for slivers."""
    scale = min(1.0, max(analysis_pixels / max(width, height), _MIN_ANALYSIS_PIXELS / min(width, height)))
    return max(_MIN_ANALYSIS_PIXELS, round(width * scale)), max(_MIN_ANALYSIS_PIXELS, round(height * scale))


def measure(before: np.ndarray, after: np.ndarray, picture: np.ndarray) -> dict[str, float]:
    """Measure a pair of neighbouring grey frames, and the second one's colour picture."""
    vectors = measures.vectors(before, after)
    amount, x, y = measures.motion(vectors)
    return {
        "motion": amount,
        "motion_x": x,
        "motion_y": y,
        "clarity": measures.clarity(after),
        "temporal_consistency": measures.temporal_consistency(before, after, vectors),
        "brightness": measures.brightness(picture),
        "saturation": measures.saturation(picture),
    }


def split(path: str, limits: decode.Limits, claimed_frames: int, analysis_pixels: int, **rules: Any) -> dict[str, Any]:
    """Cut one video into shots.

    Args:
        path: the video.
        limits: the fence's.
        claimed_frames: how many frames the file should have at least, 0 if unknown.
        analysis_pixels: longer side of the picture that is analysed.
        rules: the other fields of Rules but fps.
    Returns:
        status, reason, `frames` decoded, and `shots`, which cover every frame once: the columns of
        manifest.SHOTS that do not name the video, and `stills` as base64 of JPEG.
    """
    try:
        with decode.open_video(path, limits) as opened:
            all_rules = Rules(**rules, fps=float(decode.frame_rate(opened)))
            size = analysis_size(opened.stream.width, opened.stream.height, analysis_pixels)
            pieces, times = _pieces(opened, size, all_rules)
            decode.check_decoded(opened, len(times) - 1, claimed_frames)
            time_base = opened.stream.time_base
            assert time_base is not None, "FFmpeg gives every stream of a file that it reads a time base"
            shots = list(shots_of(pieces, times, float(time_base), all_rules))
    except decode.Refused as refused:
        return refused.result() | {"frames": None, "shots": []}
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError:
        return {"status": "failed", "reason": "decode_error", "frames": None, "shots": []}
    text = f"{time_base.numerator}/{time_base.denominator}"
    shots = [shot | {"time_base": text} for shot in shots]
    return {"status": "ok", "reason": None, "frames": len(times) - 1, "shots": shots}


def _pieces(opened: decode.Opened, size: tuple[int, int], rules: Rules) -> tuple[list[Piece], list[int]]:
    """Decode everything; return the pieces, and every frame's pts with the last frame's end after them."""
    cuts = Cuts(rules)
    current = Piece(0, "start", rules)
    pieces: list[Piece] = []
    times: list[int] = []
    duration = 1
    before = None
    for index, frame in enumerate(decode.decoded(opened)):
        picture = frame.reformat(*size, "bgr24", interpolation="AREA", threads=1).to_ndarray()
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        assert frame.pts is not None, "decode.decoded refuses frames without a time"
        duration = frame.pts - times[-1] if times else frame.duration or 1
        times.append(frame.pts)
        for cut, transition in cuts.after(index, picture):
            if cut > current.first:
                following = current.close(cut, transition)
                pieces.append(current)
                current = following
        if index % rules.measure_every == 0 and before is not None and index > current.first:
            current.measured.append((index, measure(before, grey, picture)))
        current.offer(index, picture)
        before = grey
    current.close(len(times), "")
    if times:
        pieces.append(current)
        times.append(times[-1] + duration)
    return pieces, [*times] or [0]


def shots_of(pieces: list[Piece], times: list[int], time_base: float, rules: Rules) -> Iterator[dict[str, Any]]:
    """Give one dict per shot.

    Neighbouring pieces that are each shorter than min_seconds (a flash, a strobe, a whip pan, cuts inside a
    fade) become one row, rejected as too_short: merged into a neighbour they would put a cut inside a shot.
    """
    waiting: list[Piece] = []

    def seconds(piece: Piece) -> float:
        return (times[piece.end] - times[piece.first]) * time_base

    def rejected() -> Iterator[dict[str, Any]]:
        if waiting:
            merged = Piece(waiting[0].first, waiting[0].transition, rules, end=waiting[-1].end)
            merged.measured = [entry for piece in waiting for entry in piece.measured]
            waiting.clear()
            yield _row(merged, times, time_base, "rejected", "too_short")

    for piece in pieces:
        if seconds(piece) < rules.min_seconds:
            waiting.append(piece)
            continue
        yield from rejected()
        for part in piece.parts(seconds(piece)):
            yield _row(part, times, time_base, "ok", None)
    yield from rejected()


def _row(piece: Piece, times: list[int], time_base: float, status: str, reason: str | None) -> dict[str, Any]:
    start_pts, end_pts = times[piece.first], times[piece.end]
    return {
        "start_pts": start_pts,
        "end_pts": end_pts,
        "start": start_pts * time_base,
        "end": end_pts * time_base,
        "frames": piece.end - piece.first,
        "transition": piece.transition,
        "status": status,
        "reason": reason,
        **piece.summary(),
        "stills": piece.chosen_stills() if status == "ok" else [],
    }
