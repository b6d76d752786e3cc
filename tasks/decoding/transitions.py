"""Where shots begin and end: hard cuts, fades and dissolves, found picture by picture in one pass.

Hard cuts are PySceneDetect's: its ContentDetector and AdaptiveDetector decide, fed with the score of each frame
instead of the frame. They compute it in 120 us each; the same number costs 5 us. Beside it they are fed with the change
of what is seen in the luma, which little contrast, no colour and grain leave as it is. Flashes and pans are then
told from cuts, and gradual transitions (`tasks/decoding/gradual.py`) take the cuts that were found inside them.

Scores and thresholds are those of the active picture, without bars and signs (`tasks/decoding/thumbs.py`). What lasts
is said in seconds.
"""

from math import ceil
from typing import Literal, NamedTuple, Protocol

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, ContentDetector

from tasks.decoding import gradual, thumbs

Kind = Literal["cut", "fade", "dissolve"]

_AROUND = 2  # frames on either side that the adaptive detector compares with
_STANDS_OUT = 2.5  # times the change around it; where a pan begins or ends it is 2
_LOOK_EVERY = 128  # frames from one look for transitions to the next
_MAX_WAITING = 25.0  # seconds: a fade that stays black longer is told in pieces
_MAY_BEGIN_EARLIER = 0.4  # seconds by which a transition's beginning may move when more of it is seen
_FLASH_SECONDS = 0.12  # a flash lasts as long at most
_STROBE = 4  # more changes than this within _STROBE_SECONDS on either side are a strobe, which is cut into pieces
_STROBE_SECONDS = 0.34
_FLASH_LEVELS = 6.0  # that it is brighter than the frames around it
_SAME = 0.5  # of the change to the flash: what lies before and after it differs by less
_CARD_LEVELS = 18.0  # by which a sign on black is brighter
_SEEN_LEVELS = 2.0  # of light that a cut changes at least, if not the structure: hues of what is almost grey are noise,
_SEEN_STRUCTURE = 15.0  # and a key frame changes a little all over; of `thumbs.structure`
_STRUCTURE_STANDS_OUT = 2.2  # times the change around it; two pictures have no more than nothing in common
_LEAK = 0.3  # share of the neighbour in a frame beside a cut that must not be there
_DISSOLVE_EDGE = 0.08  # seconds beside a dissolve in which a trace of the neighbour may be left
_OTHER_STRUCTURE = 65.0  # of `thumbs.structure`: what is seen is something else


class Transition(NamedTuple):
    """From one shot to the next: frames `first` up to `end` belong to neither, none in a clean hard cut."""

    first: int
    end: int
    """First frame of the shot that begins."""
    kind: Kind


class Rules(Protocol):
    """What is needed of ShotSettings."""

    @property
    def detector(self) -> str: ...
    @property
    def content_threshold(self) -> float: ...
    @property
    def adaptive_threshold(self) -> float: ...
    @property
    def adaptive_min_content(self) -> float: ...
    @property
    def fade_threshold(self) -> float: ...
    @property
    def dissolve_misfit(self) -> float: ...


class Detector(Protocol):
    """Is shown every picture of a video in order, and says the transitions in order, each once."""

    settled: int
    """All transitions before this frame have been said."""

    def after(self, bgr: np.ndarray, hsv: np.ndarray, luma: np.ndarray, light: float) -> list[Transition]:
        """Take the next picture and return the transitions known by now.

        Args:
            bgr, hsv: uint8 (height, width, 3), OpenCV's; luma: uint8 (height, width).
            light: mean of the colour channels, 0 to 255.
        """
        ...

    def flush(self) -> list[Transition]:
        """Return the rest: there is no further picture."""
        ...


class _Content(ContentDetector):  # type: ignore[misc]  # PySceneDetect has no types
    """PySceneDetect's rule, given scores instead of pictures."""

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: np.ndarray) -> float:
        return float(frame_img)


class _Adaptive(AdaptiveDetector):  # type: ignore[misc]
    """PySceneDetect's rule, given scores instead of pictures."""

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: np.ndarray) -> float:
        return float(frame_img)


class HardCuts:
    """The cuts of PySceneDetect's detectors, by its own decision rules.

    `content` and `adaptive` are its detectors as they are. `both` is the adaptive one, and of the content one those
    cuts that stand out from the frames on both sides, which a pan's do not, and the adaptive one again on the change of
    structure; the first and last frames count too.
    """

    def __init__(self, rules: Rules) -> None:
        # min_scene_len 0: what is too short is decided, and accounted for, when shots are made
        content = _Content(threshold=rules.content_threshold, min_scene_len=0)
        least = rules.adaptive_min_content
        adaptive = _Adaptive(rules.adaptive_threshold, min_scene_len=0, min_content_val=least)
        clear = rules.content_threshold
        standing_out = _Adaptive(_STANDS_OUT, min_scene_len=0, min_content_val=clear, window_width=1)
        detectors = {"content": [content], "adaptive": [adaptive], "both": [adaptive, standing_out]}
        self._detectors: list[ContentDetector] = detectors[rules.detector]
        self._structure: list[ContentDetector] = []
        if rules.detector == "both":
            self._structure.append(_Adaptive(_STRUCTURE_STANDS_OUT, min_scene_len=0, min_content_val=_OTHER_STRUCTURE))
        self._ahead = _AROUND if rules.detector == "both" else 0
        self._count = 0
        for _ in range(self._ahead):
            self.after(0.0, 0.0)

    def after(self, content: float, structure: float) -> list[int]:
        """Take the change to the next frame, levels and `thumbs.structure`; return the frames at which shots begin."""
        time = FrameTimecode(self._count, fps=1.0)  # it counts frames here; times are the caller's
        self._count += 1
        scores = [(detector, content) for detector in self._detectors]
        scores += [(detector, structure) for detector in self._structure]
        cuts = [cut for detector, score in scores for cut in detector.process_frame(time, np.float64(score))]
        return [cut.frame_num - self._ahead for cut in cuts]

    def flush(self) -> list[int]:
        """Return the cuts of the last frames."""
        return [cut for _ in range(self._ahead) for cut in self.after(0.0, 0.0)]


class Content:
    """PySceneDetect's score of each frame: the mean change of hue, saturation and value, levels. Cost 5 us."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None

    def after(self, hsv: np.ndarray) -> float:
        """Take the next picture, uint8 (height, width, 3)."""
        score = 0.0 if self._before is None else cv2.norm(hsv, self._before, cv2.NORM_L1) / hsv.size
        self._before = hsv
        return score


class Transitions:
    """All transitions of one video by the pictures' statistics; a Detector. Cost 0.15 ms a frame.

    Args:
        fps: frames per second, in the mean.
    """

    def __init__(self, rules: Rules, fps: float) -> None:
        self._rules, self._fps = rules, fps
        self._reach = round(gradual.REACH * fps)
        self._content = Content()
        self._hard = HardCuts(rules)
        self._cuts: set[int] = set()
        self.settled = 0
        self._looked = 0  # how many frames there were when they were last looked at
        self._base = 0  # the video's frame that is the first one kept
        self._said = 0  # where the last transition ends that has been said
        self._is_open = False  # a transition goes on there, of which the first part has been said
        self._thumbs: list[np.ndarray] = []
        self._lights: list[float] = []
        self._scores: list[float] = []

    def after(self, bgr: np.ndarray, hsv: np.ndarray, luma: np.ndarray, light: float) -> list[Transition]:
        return self.take(thumbs.thumb(luma), self._content.after(hsv), light)

    def _is_new(self, transition: Transition) -> bool:
        return self._is_open or transition.first >= self._said

    def take(self, thumb: np.ndarray, score: float, light: float) -> list[Transition]:
        """Take what is kept of the next picture and return the transitions known by now."""
        self._thumbs.append(thumb)
        self._scores.append(score)
        self._lights.append(light)
        count = self._base + len(self._thumbs)
        if count - self._looked >= _LOOK_EVERY and count > self._reach:
            return self._look(count - self._reach)
        return []

    def flush(self) -> list[Transition]:
        return self._look(self._base + len(self._thumbs), is_last=True) if self._thumbs else []

    def _look(self, until: int, is_last: bool = False) -> list[Transition]:
        """Return the transitions that end by frame `until`, and forget what is no longer needed."""
        count = self._base + len(self._thumbs)
        active = thumbs.active(np.array(self._thumbs), np.array(self._lights))
        seen = Seen(active.thumbs, active.lights, thumbs.structure(active.thumbs), active.peaks, self._base, self._fps)
        for frame in range(self._looked, count):
            place = frame - self._base
            score = self._scores[place]
            if self._rules.detector == "both":
                score /= active.share
            self._cuts.update(self._hard.after(score, float(seen.structure[place])))
        if is_last:
            self._cuts.update(self._hard.flush())
        self._looked = count
        found = [
            transition._replace(first=max(transition.first, self.settled))
            for transition in find(seen, sorted(self._cuts), self._rules, self.settled)
            if transition.first >= self.settled or (transition.end > self.settled and self._is_new(transition))
        ]
        waiting = next((transition for transition in found if transition.end > until), None)
        goes_on = self._is_open and waiting is not None and waiting.first == self.settled
        is_long = waiting is not None and until - waiting.first > _MAX_WAITING * self._fps
        self._is_open = goes_on or is_long
        if waiting is not None and not self._is_open:
            # it may turn out to begin a little earlier
            over = max([self.settled, *(transition.end for transition in found if transition.end <= waiting.first)])
            until = max(over, waiting.first - round(_MAY_BEGIN_EARLIER * self._fps))
        said = [transition._replace(end=min(transition.end, until)) for transition in found if transition.first < until]
        self._said = max([self._said, *(transition.end for transition in said)])
        self.settled = until
        keep = max(0, until - self._reach - self._base)
        del self._thumbs[:keep], self._lights[:keep], self._scores[:keep]
        self._base += keep
        self._cuts = {cut for cut in self._cuts if cut >= self._base}
        return said


class Seen(NamedTuple):
    """What is kept of some neighbouring frames."""

    thumbs: np.ndarray
    """float32 (frames, pixels), luma of the active picture."""
    lights: np.ndarray
    """(frames,) mean of its colour channels, 0 to 255."""
    structure: np.ndarray
    """(frames,) `thumbs.structure`."""
    peaks: np.ndarray
    """(frames,) levels from the darkest to the brightest pixel, with signs."""
    base: int
    """The video's frame that is the first of these."""
    fps: float

    def distance(self, one: int, other: int) -> float:
        """Return the root mean square difference of two of the video's frames, levels."""
        return float(np.sqrt(np.mean((self.thumbs[one - self.base] - self.thumbs[other - self.base]) ** 2)))

    def share(self, frame: int, before: int, after: int) -> float:
        """Return how much of frame `after` is in a frame that may mix it with `before`: 0 none, 1 all."""
        start, stop, mixed = (self.thumbs[place - self.base] for place in (before, after, frame))
        change = stop - start
        return float((mixed - start) @ change / max(float(change @ change), 1e-3))

    @property
    def end(self) -> int:
        return self.base + len(self.thumbs)


def find(seen: Seen, cuts: list[int], rules: Rules, settled: int) -> list[Transition]:
    """Return the transitions among some frames, in order and without overlap.

    Args:
        cuts: what PySceneDetect takes for hard cuts, in order.
        settled: no dissolve is looked for before this frame of the video.
    """
    is_barred = np.zeros(len(seen.thumbs), bool)
    found: list[Transition] = []
    for fade in gradual.fades(seen.thumbs, seen.lights, rules.fade_threshold, seen.fps):
        if is_lit(seen, fade.flat):
            continue
        if not fade.is_ramp and seen.peaks[fade.flat.first : fade.flat.end].min() > _CARD_LEVELS:
            continue  # a sign on black between two cuts
        span = fade.span
        is_barred[max(0, span.first - 1) : span.end + 1] = True
        found.append(Transition(span.first + seen.base, span.end + seen.base, "fade" if fade.is_ramp else "cut"))
    near = max(0, settled - round(gradual.NEAR * seen.fps) - seen.base)
    edge = round(_DISSOLVE_EDGE * seen.fps)
    for span in gradual.dissolves(seen.thumbs[near:], is_barred[near:], rules.dissolve_misfit, seen.fps):
        first = max(seen.base, near + seen.base + span.first - edge)
        found.append(Transition(first, min(seen.end, near + seen.base + span.end + edge), "dissolve"))
    hard = [cut for cut in cuts if not any(other.first <= cut <= other.end for other in found)]
    hard = [cut for cut in hard if is_seen(seen, cut)]
    hard = [cut for cut in hard if not is_flash(seen, cut, hard)]
    return sorted(found + _trimmed(seen, hard))


def is_seen(seen: Seen, cut: int) -> bool:
    """Say whether a hard cut changes structure or light: hues count too, and key frames move those of what is grey."""
    place = cut - seen.base
    if not 0 < place < len(seen.thumbs):
        return True
    lighter = abs(seen.lights[place] - seen.lights[place - 1])
    return bool(lighter >= _SEEN_LEVELS or seen.structure[place] >= _SEEN_STRUCTURE)


def is_lit(seen: Seen, flat: gradual.Span) -> bool:
    """Say whether frames that are white all over are only a flash: what is before and after them is the same."""
    before, after = flat.first - 1, flat.end
    if flat.end - flat.first > ceil(_FLASH_SECONDS * seen.fps) or before < 0 or after >= len(seen.thumbs):
        return False
    first = seen.base + before
    is_bright = seen.lights[flat.first : flat.end].min() > max(seen.lights[before], seen.lights[after])
    return bool(is_bright) and seen.distance(first, seen.base + after) < _SAME * seen.distance(first, first + 1)


def is_flash(seen: Seen, cut: int, cuts: list[int]) -> bool:
    """Say whether a change is only the beginning or the end of a flash: bright for some frames, then as before."""
    if sum(abs(other - cut) <= _STROBE_SECONDS * seen.fps for other in cuts) > _STROBE:
        return False
    for frames in range(1, ceil(_FLASH_SECONDS * seen.fps) + 1):
        for first in (cut, cut - frames):
            before, after = first - 1, first + frames
            if before < seen.base or after >= seen.end:
                continue
            lights = seen.lights[before - seen.base : after - seen.base + 1]
            is_bright = lights[1:-1].min() > max(lights[0], lights[-1]) + _FLASH_LEVELS
            if is_bright and seen.distance(before, after) < _SAME * seen.distance(cut - 1, cut):
                return True
    return False


def _trimmed(seen: Seen, cuts: list[int]) -> list[Transition]:
    """Return hard cuts without the frames beside them that show both shots, as converted frame rates do."""
    found: list[Transition] = []
    bounds = [seen.base, *cuts, seen.end]
    for cut, lowest, highest in zip(cuts, bounds, bounds[2:], strict=False):
        if lowest == cut - 1 and found and found[-1].end == lowest and cut - 2 >= seen.base:
            share = seen.share(cut - 1, cut - 2, cut)
            if _LEAK / 2 < share < 1 - _LEAK / 2:  # one frame, cut off on both sides, is of both shots
                found[-1] = Transition(found[-1].first, cut, "cut")
                continue
        first = end = cut
        if cut - 2 >= lowest and cut + 1 < highest:
            first -= seen.share(cut - 1, cut - 2, cut + 1) > _LEAK
            end += seen.share(cut, cut - 2, cut + 1) < 1 - _LEAK
        found.append(Transition(first, end, "cut"))
    return found
