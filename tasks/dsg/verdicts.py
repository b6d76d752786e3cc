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
        else:
            verdicts[question.id] = asking.verdict(question, early_exit)
    return Examined(verdicts, asking.evidence)


class Examination:
    """The questions of one caption, put to a judge some at a time: what `examine` is where one answer is waited for.

    Args:
        graph: the questions.
        frames: how many there are.
    """

    def __init__(self, graph: Graph, frames: int) -> None:
        self.graph, self.frames = graph, frames
        self._asking = _Asking(graph, frames, _cannot_wait)

    def wanted(self) -> list[tuple[Question, int | None]]:
        """Return what is to be asked next, one frame of every question that is open; nothing when all are decided."""
        return list(self._look()[1].values())

    def take(self, question: int, frame: int | None, answer: Answer) -> None:
        """Note an answer to what was wanted, by the question's id."""
        self._asking.answers[question, frame] = answer

    def examined(self) -> Examined:
        """Return what became of the questions.

        Raises:
            ValueError: some are open.
        """
        verdicts, open_ones = self._look()
        if open_ones:
            raise ValueError(f"examined: {len(open_ones)} answers are wanted first")
        return Examined(verdicts, self._asking.evidence)

    def _look(self) -> tuple[dict[int, Verdict], dict[tuple[int, int | None], tuple[Question, int | None]]]:
        """Return the verdicts so far, and what is wanted for the others."""
        verdicts: dict[int, Verdict] = {}
        wanted = {}
        for question in self.graph.questions:
            parents = [verdicts.get(parent) for parent in question.parents]
            if any(found not in (None, "present") for found in parents):
                verdicts[question.id] = "void"
            elif None not in parents:
                try:
                    verdicts[question.id] = self._asking.verdict(question, early_exit=True)
                except _UnansweredError as error:
                    asked, frame = error.args
                    wanted[asked.id, frame] = (asked, frame)
        return verdicts, wanted


class _UnansweredError(Exception):
    """An answer is not there yet: of this question, about this frame."""


def _cannot_wait(question: Question, frame: int | None) -> Answer:
    raise _UnansweredError(question, frame)


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

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        return tuple(Evidence(*key, answer) for key, answer in self.answers.items())

    def verdict(self, question: Question, early_exit: bool) -> Verdict:
        """Return what becomes of a question whose parents are all present."""
        if question.kind not in PER_FRAME:
            return verdict([self.answer(question, None)])
        answers = self.of_frames(question)
        return verdict(_upto_yes(answers) if early_exit else list(answers))

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
