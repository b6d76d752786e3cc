"""Who answers the questions, by looking at stills of a clip."""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Protocol

import cv2
import numpy as np

from tasks.demo import shapes
from tasks.dsg import rules
from tasks.dsg.questions import Question

Look = Callable[[Question, int | None], object]
"""Says something to a question about the frame of this number, all in order if None, as the model puts it:
`answers.parse` takes it."""


class Answering(Protocol):
    """Who answers, for the evidence."""

    name: str
    """Of its model."""
    prompt_sha256: str
    """Of the words in which it is asked."""


class Judge(Answering, Protocol):
    """Looks at a clip and answers questions."""

    def look(self, stills: Sequence[bytes]) -> Look:
        """Return what answers questions about a clip.

        Args:
            stills: JPEG bytes, in order of time, as stage shots made them.
        """


class ShapesJudge:
    """Classical image processing (`shapes.judge`): it knows one coloured shape that moves, and nothing else.

    Shape and colour it sees in a single frame, a direction only in several. Of videos that show other things its
    answers mean nothing: decoys tell.
    """

    name: str = "shapes.judge"
    prompt_sha256: str = rules.PROMPT_SHA256

    def look(self, stills: Sequence[bytes]) -> Look:
        """Return what answers questions about a clip.

        Raises:
            ValueError: a still is no picture, or they differ in size.
        """
        known = tuple(stills)
        _decoded(known)
        return _answering(lambda frame: _seen(known if frame is None else known[frame : frame + 1]))

    def look_at(self, video: np.ndarray) -> Look:
        """Return what answers questions about frames: uint8 RGB (T, H, W, 3)."""
        return _answering(cache(lambda frame: shapes.judge(video if frame is None else video[frame : frame + 1])))


def _answering(seen: Callable[[int | None], shapes.Verdict]) -> Look:
    """Return what answers questions by what is seen in the frame of a number, or in all in order."""

    def answer(question: Question, frame: int | None) -> str:
        verdict = seen(frame)
        asked = rules.said(question.text)
        match question.kind:
            case "object":
                is_so = verdict.shape in asked.shapes
            case "attribute":
                is_so = verdict.colour in asked.colours
            case "relation":
                is_so = verdict.direction in asked.directions
            case kind:
                return f"cannot say: {kind}"
        return "yes" if is_so else "no"

    return answer


@lru_cache(maxsize=2048)  # captions of one clip by several captioners are judged by the same stills
def _seen(stills: tuple[bytes, ...]) -> shapes.Verdict:
    return shapes.judge(_decoded(stills))


def _decoded(stills: Sequence[bytes]) -> np.ndarray:
    found = (cv2.imdecode(np.frombuffer(still, np.uint8), cv2.IMREAD_COLOR) for still in stills if still)
    pictures = [cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) for picture in found if picture is not None]
    if len(pictures) < max(len(stills), 1):
        raise ValueError(f"{len(stills)} stills, of which {len(pictures)} are pictures: run stage shots again")
    sizes = sorted({picture.shape[:2] for picture in pictures})
    if len(sizes) > 1:
        raise ValueError(f"stills of {sizes} pixels (height, width): those of a clip are of one size")
    return np.stack(pictures)
