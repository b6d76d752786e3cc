"""Find the shots of one video, and measure them, in a single decoding pass. Runs in the sandbox only.

Pictures come from `tasks/decoding/decode.py`, where shots begin and end from a Detector of
`tasks/decoding/transitions.py`, which knows it some seconds later. Detecting counts in frames; shots have timestamps.
"""

import base64
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil
from operator import sub
from typing import Any, NamedTuple, cast

import av
import numpy as np

from tasks.decoding import clip_frames, decode, measures, motion, packets
from tasks.decoding.limits import Limits
from tasks.decoding.transitions import Detector, Transition, Transitions


class Rules(NamedTuple):
    """The fields of ShotSettings that decide about one video, with its frame rate."""

    detector: str
    content_threshold: float
    adaptive_threshold: float
    adaptive_min_content: float
    fade_threshold: float
    dissolve_misfit: float
    transnet_weights: str
    """A file; read only if the detector is transnet."""
    transnet_threshold: float
    raft_weights: str
    """A file; empty where motion is estimated by `motion.dense`."""
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
        """Frames between candidates for stills at first, in the mean: both of each measured pair are, so that every
        shot long enough to be kept holds four at least."""
        return max(1, self.measure_every // 2)

    @property
    def max_still_every(self) -> int:
        """A shot that is split evenly at max_seconds still has enough candidates in every part."""
        return max(1, int(self.fps * self.max_seconds / (4 * self.stills)))


class Seen(NamedTuple):
    """What is kept of a frame until it is known to which shot it belongs."""

    frame: int
    glance: measures.FrameStats
    measured: measures.PairStats | None
    """With the frame before it, if the pair was measured."""
    still: np.ndarray | None
    """BGR, if the frame is a candidate for a still."""


@dataclass
class Piece:
    """A shot, or what lies between two: frames `first` up to `end`."""

    first: int
    transition: str
    rules: Rules
    end: int = -1
    is_between: bool = False
    """The frames of a transition, which belong to no shot."""
    is_damaged: bool = False
    """Frames that do not decode cleanly, or follow such a one."""
    glances: list[measures.FrameStats] = field(default_factory=list)
    measured: list[tuple[int, measures.PairStats]] = field(default_factory=list)  # (frame, values)
    stills: list[tuple[int, np.ndarray | bytes]] = field(default_factory=list)  # BGR, or JPEG
    _offered: int = 0
    _keep_every: int = 1

    def take(self, seen: Seen) -> None:
        """Take the next frame."""
        self.glances.append(seen.glance)
        # a pair of frames is measured at its second one: at the first frame of a piece it spans the cut
        if seen.measured is not None and seen.frame > self.first:
            self.measured.append((seen.frame, seen.measured))
        if seen.still is not None and not self.is_between:
            self._offer(seen.frame, seen.still)

    def _offer(self, index: int, picture: np.ndarray) -> None:
        """Keep the picture if it is one of those that lie evenly over the piece so far."""
        self._offered += 1
        if (self._offered - 1) % self._keep_every:
            return
        self.stills.append((index, picture))
        most = 4 * self.rules.stills
        if len(self.stills) <= most:
            return
        if 2 * self._keep_every * self.rules.still_every <= self.rules.max_still_every:
            self.stills = self.stills[::2]
            self._keep_every *= 2
        else:  # JPEG is a tenth of the picture: a long piece has many candidates
            old, held = self.stills[-1 - most]
            self.stills[-1 - most] = (old, _encoded(held))

    def parts(self, times: list[int], seconds: float) -> Iterator["Piece"]:
        """Give the piece itself, which lasts `seconds`, or parts of it of at most max_seconds, even in time.

        Where a frame is shown for longer, it is a part of its own, or the end of one.
        """
        count = max(1, int(np.ceil(seconds / self.rules.max_seconds)))
        start_pts, end_pts = times[self.first], times[self.end]
        if count < self.end - self.first:
            bounds = [
                bisect_right(times, start_pts + (end_pts - start_pts) * part // count) - 1 for part in range(count)
            ]
        else:
            bounds = list(range(self.first, self.end))
        for first, end in pairwise([*dict.fromkeys(bounds), self.end]):
            yield self.part(first, end)

    def part(self, first: int, end: int) -> "Piece":
        """Return the frames `first` up to `end` of the piece as one of their own."""
        return Piece(
            first,
            self.transition if first == self.first else "split",
            self.rules,
            end,
            self.is_between,
            glances=self.glances[first - self.first : end - self.first],
            measured=[entry for entry in self.measured if first < entry[0] < end],
            stills=[entry for entry in self.stills if first <= entry[0] < end],
        )

    def joined(self, after: "Piece") -> "Piece":
        """Return this piece and the one after it as one, without stills."""
        return replace(
            self, end=after.end, glances=self.glances + after.glances, measured=self.measured + after.measured
        )

    def chosen_stills(self) -> list[str]:
        """Return `stills` of the candidates, at even distances from the ends of the piece, as base64 of JPEG."""
        count = min(self.rules.stills, len(self.stills))
        at = [(2 * place + 1) * len(self.stills) // (2 * count) for place in range(count)]
        return [base64.b64encode(_encoded(self.stills[place][1])).decode() for place in at]


def _encoded(picture: np.ndarray | bytes) -> bytes:
    return picture if isinstance(picture, bytes) else measures.jpeg(picture)


class Cutter:
    """Deals a video's frames out to its shots as soon as it is known to which they belong."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._current = Piece(0, "start", rules)
        self._waiting: deque[Seen] = deque()
        self.pieces: list[Piece] = []

    def see(self, seen: Seen, transitions: list[Transition], settled: int) -> None:
        """Take the next frame, and the transitions that are known with it; before frame `settled` there is no other."""
        self._waiting.append(seen)
        self.cut(transitions)
        self._deal(settled)

    def cut(self, transitions: list[Transition]) -> None:
        """End the current shot at each transition in turn."""
        for transition in transitions:
            self._begin(transition.first, transition.kind)
            if transition.end > transition.first:
                self._current.is_between = True
                self._begin(transition.end, transition.kind)

    def finish(self, count: int) -> list[Piece]:
        """Return the pieces of a video of `count` frames."""
        if count:
            self._begin(count, "")
        return self.pieces

    def _begin(self, first: int, transition: str) -> None:
        self._deal(first)
        if first > self._current.first:
            self._current.end = first
            self.pieces.append(self._current)
        self._current = Piece(first, transition if first else "start", self._rules)

    def _deal(self, until: int) -> None:
        while self._waiting and self._waiting[0].frame < until:
            self._current.take(self._waiting.popleft())


@decode.answering("decode_error")
def split(
    path: str,
    limits: Limits,
    claimed_frames: int,
    fps: float,
    analysis_pixels: int,
    part: list[float] | None = None,
    repairs: Sequence[str] = (),
    **rules: Any,
) -> dict[str, Any]:
    """Cut one video into shots, or one part of a long one.

    Args:
        path: the video.
        limits: the sandbox's.
        claimed_frames: how many frames the file, or the part, should have at least, 0 if unknown.
        fps: frames per second in the mean, as `probe.probe` says.
        analysis_pixels: longer side of the picture that is analysed.
        part: seconds after the video's first frame, from (inside) and up to (outside). A shot that goes on beyond a
            part's end is split there.
        repairs: what `probe.probe` said of the video.
        rules: the other fields of Rules but fps.
    Returns:
        status, reason, and if ok `frames` decoded and `shots`, which cover every frame once: the columns of
        tables.SHOTS that do not name the video, and `stills` as base64 of JPEG.
    """
    with decode.open_video(path, limits, repairs) as opened:
        all_rules, marks, time_base = Rules(**rules, fps=fps), packets.Marks(), opened.time_base
        pieces, times = _pieces(opened, _frames(opened, part, marks), analysis_pixels, all_rules)
        if part is None:
            decode.check_decoded(opened, len(times) - 1, claimed_frames)
        pieces = _parted(pieces, times, marks)
        shots = list(shots_of(pieces, times, float(time_base), all_rules))
    text = f"{time_base.numerator}/{time_base.denominator}"
    shots = [shot | {"time_base": text} for shot in shots]
    return {"status": "ok", "reason": None, "frames": len(times) - 1, "shots": shots}


def prepare(rules: dict[str, Any]) -> None:
    """Load what `split` needs by these rules, before this process is confined and forked."""
    if rules["detector"] == "transnet":
        from tasks.decoding import transnet  # torch: seconds, and hundreds of megabytes that nothing else here needs

        transnet.prepare(rules["transnet_weights"])
    if rules["raft_weights"]:
        from tasks.decoding import raft  # ONNX Runtime: tens of megabytes that nothing else here needs

        raft.prepare(rules["raft_weights"])


def detector(rules: Rules) -> Detector:
    """Return the detector that the rules ask for."""
    if rules.detector == "transnet":
        from tasks.decoding import transnet  # as in `prepare`

        return transnet.TransnetTransitions(rules, rules.transnet_weights, rules.transnet_threshold)
    return Transitions(rules, rules.fps)


def motion_estimator(rules: Rules) -> motion.Estimator:
    """Return the estimator of motion that the rules ask for."""
    if rules.raft_weights:
        from tasks.decoding import raft  # as in `prepare`

        return raft.prepare(rules.raft_weights).vectors
    return motion.dense


def _frames(opened: decode.Opened, part: list[float] | None, marks: packets.Marks) -> Iterator[av.VideoFrame]:
    if part is None:
        yield from decode.decoded(opened, marks)
        return
    base = opened.stream.start_time or 0
    first, end = (base + ceil(Fraction(seconds) / opened.time_base) for seconds in part)
    for frame in clip_frames.decoded_from(opened, first, marks) if part[0] else decode.decoded(opened, marks):
        pts = cast(int, frame.pts)  # decoded gives no frame without a time
        if pts >= end:
            return
        if pts >= first:
            yield frame


def _parted(pieces: list[Piece], times: list[int], marks: packets.Marks) -> list[Piece]:
    """Cut the pieces where damage begins and ends, and where the clock had started again."""
    if not marks.damaged and not marks.restarts:
        return pieces
    restarts = set(marks.restarts)
    found: list[Piece] = []
    for piece in pieces:
        first = piece.first
        is_damaged = [time in marks.damaged for time in times[first : piece.end]]
        bounds = [
            frame
            for frame in range(first + 1, piece.end)
            if is_damaged[frame - first] != is_damaged[frame - first - 1] or times[frame] in restarts
        ]
        for start, end in pairwise([first, *bounds, piece.end]):
            part = piece.part(start, end)
            part.is_damaged = is_damaged[start - first]
            if part.is_damaged and found and found[-1].is_damaged:  # a cut in what is damaged means nothing
                found[-1] = found[-1].joined(part)
            else:
                found.append(part)
    return found


def _pieces(
    opened: decode.Opened, frames: Iterator[av.VideoFrame], analysis_pixels: int, rules: Rules
) -> tuple[list[Piece], list[int]]:
    """Decode everything; return the pieces, and every frame's pts with the last frame's end after them."""
    watching, cutter, estimate = detector(rules), Cutter(rules), motion_estimator(rules)
    times: list[int] = []
    duration = 1
    before = None
    for picture in decode.pictures(opened, frames, analysis_pixels, rules.measure_every):
        duration = picture.pts - times[-1] if times else picture.duration or 1
        times.append(picture.pts)
        glance = measures.glance(before, picture)
        measured = None
        if before is not None and picture.is_measured:
            measured = measures.measure(before, picture, estimate)
        found = watching.after(picture.bgr, picture.hsv, picture.luma, 255 * glance.brightness)
        cutter.see(Seen(picture.index, glance, measured, picture.still), found, watching.settled)
        before = picture
    cutter.cut(watching.flush())
    pieces = cutter.finish(len(times))
    return pieces, [*times, times[-1] + duration] if times else [0]


def shots_of(pieces: list[Piece], times: list[int], time_base: float, rules: Rules) -> Iterator[dict[str, Any]]:
    """Give one dict per shot, and one per transition that takes time, and per stretch of damage, rejected as such.

    Neighbouring pieces that are each shorter than min_seconds (a strobe, a whip pan) become one row, rejected as
    too_short: merged into a neighbour they would put a cut inside a shot.
    """
    waiting: list[Piece] = []

    def seconds(piece: Piece) -> float:
        return (times[piece.end] - times[piece.first]) * time_base

    def rejected() -> Iterator[dict[str, Any]]:
        if waiting:
            merged = Piece(waiting[0].first, waiting[0].transition, rules, end=waiting[-1].end)
            merged.glances = [entry for piece in waiting for entry in piece.glances]
            merged.measured = [entry for piece in waiting for entry in piece.measured]
            waiting.clear()
            yield _row(merged, times, time_base, "rejected", "too_short")

    for piece in pieces:
        if not (piece.is_between or piece.is_damaged) and seconds(piece) < rules.min_seconds:
            waiting.append(piece)
            continue
        yield from rejected()
        if piece.is_damaged:
            yield _row(piece, times, time_base, "rejected", "damaged")
            continue
        if piece.is_between:
            yield _row(piece, times, time_base, "rejected", "transition")
            continue
        for part in piece.parts(times, seconds(piece)):
            # of frames that are shown for seconds each, none may have been a candidate for a still
            shown = max(map(sub, times[part.first + 1 : part.end + 1], times[part.first : part.end])) * time_base
            is_seen = part.stills and shown <= rules.max_seconds
            yield _row(part, times, time_base, *(("ok", None) if is_seen else ("rejected", "too_few_frames")))
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
        **measures.summarise(piece.glances, [values for _, values in piece.measured]),
        "stills": piece.chosen_stills() if status == "ok" else [],
    }
