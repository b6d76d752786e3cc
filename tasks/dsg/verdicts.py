"""What becomes of each question of a caption: present, invented, undecided or void."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

from tasks.dsg.answers import Answer
from tasks.dsg.questions import PER_FRAME, Graph, Question

Verdict = Literal["present", "invented", "undecided", "void"]
"""present: the answer is yes in one frame at least. invented: no in all of them. undecided: neither. void: a question
that it depends on is not present, so that it makes no sense and is not asked."""

Ask = Callable[[Question, int | None], Answer]
"""Puts a question to a judge: about the frame of this number, or about all frames in order where that is None."""


class Evidence(NamedTuple):
    """One answer."""

    question: int
    """Id."""
    frame: int | None
    """None: all, in order."""
    answer: Answer


class Examined(NamedTuple):
    """A caption whose questions were answered."""

    verdicts: dict[int, Verdict]
    """By id of the question, in the order of the graph."""
    evidence: tuple[Evidence, ...]
    """In the order in which it was asked."""


@cache
def frame_order(frames: int) -> tuple[int, ...]:
    """Return the numbers of the frames in the order in which they are asked about: middle, ends, quarters, and so on.

    What is in a video is in its middle most often, and neighbours show the same.
    """
    if frames < 1:
        raise ValueError(f"frame_order: frames is {frames}, and a judge needs one at least")
    order = dict.fromkeys([frames // 2, 0, frames - 1])
    gaps = deque([(0, frames // 2), (frames // 2, frames - 1)])
    while gaps:
        low, high = gaps.popleft()
        if high - low > 1:
            middle = (low + high) // 2
            order[middle] = None
            gaps += [(low, middle), (middle, high)]
    return tuple(order)


def verdict(answers: Iterable[Answer]) -> Verdict:
    """Return what the answers of all frames say together; undecided where there is none."""
    found = set(answers)
    if "yes" in found:
        return "present"
    return "invented" if found == {"no"} else "undecided"


def examine(graph: Graph, frames: int, ask: Ask, early_exit: bool = True) -> Examined:
    """Put the questions of one caption, each after those that it depends on.

    Objects and texts are asked about in every frame; attributes in the frames that affirm all that they are of; other
    kinds once, with all frames.

    Args:
        frames: how many there are.
        early_exit: stop at the first yes, which decides. Verdicts are the same without.
    """
    asking = _Asking(graph, frames, ask)
    verdicts: dict[int, Verdict] = {}
    for question in graph.questions:
        if any(verdicts[parent] != "present" for parent in question.parents):
            verdicts[question.id] = "void"
        elif question.kind not in PER_FRAME:
            verdicts[question.id] = verdict([asking.answer(question, None)])
        else:
            answers = asking.of_frames(question)
            verdicts[question.id] = verdict(_upto_yes(answers) if early_exit else list(answers))
    return Examined(verdicts, tuple(Evidence(*key, answer) for key, answer in asking.answers.items()))


def _upto_yes(answers: Iterable[Answer]) -> Iterable[Answer]:
    for answer in answers:
        yield answer
        if answer == "yes":
            return


class _Asking:
    """The answers so far: no pair of question and frame is asked about twice."""

    def __init__(self, graph: Graph, frames: int, ask: Ask) -> None:
        self._order, self._ask = frame_order(frames), ask
        self._questions = {question.id: question for question in graph.questions}
        self.answers: dict[tuple[int, int | None], Answer] = {}

    def answer(self, question: Question, frame: int | None) -> Answer:
        key = (question.id, frame)
        if key not in self.answers:
            self.answers[key] = self._ask(question, frame)
        return self.answers[key]

    def of_frames(self, question: Question) -> Iterable[Answer]:
        """Give the answers about one frame after the other, of those in which the question makes sense."""
        for frame in self._order:
            if question.kind != "attribute" or self._are_seen(question.parents, frame):
                yield self.answer(question, frame)

    def _are_seen(self, parents: Sequence[int], frame: int) -> bool:
        return all(self._is_seen(self._questions[parent], frame) for parent in parents)

    def _is_seen(self, question: Question, frame: int) -> bool:
        if question.kind not in PER_FRAME:
            return True  # of no frame in particular
        if question.kind == "attribute" and not self._are_seen(question.parents, frame):
            return False
        return self.answer(question, frame) == "yes"


def dsg_published(answers: Mapping[int, object], parents: Mapping[int, Sequence[int]]) -> float:
    """Return a caption's score as the Davidsonian Scene Graph's own code has it, for comparison with its figures.

    The share of questions whose answer is "yes", where a question counts as no if one of its direct parents has
    another answer. Grandparents do not matter, and what is not exactly "yes" is no: both differ from `examine`.

    Args:
        answers: by id of the question.
        parents: ids, by id of the question; ids without an answer do not matter.

    Raises:
        ValueError: there is no question.
    """
    if not answers:
        raise ValueError("dsg_published: a caption without questions has no score")
    is_yes = {number: answer == "yes" for number, answer in answers.items()}
    kept = [
        own and all(is_yes.get(parent, True) for parent in parents.get(number, ())) for number, own in is_yes.items()
    ]
    return sum(kept) / len(kept)
