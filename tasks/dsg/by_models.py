"""Captions judged by models behind endpoints: one writes the questions, one looks at stills and answers them.

Questions of many captions are under way together, a round at a time: of every question that is open its next frame.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tasks.captions import cleaning
from tasks.captions.frames import is_whole_jpeg, spread
from tasks.chat.answers import MalformedError
from tasks.chat.prompted import PromptedModel
from tasks.chat.store import STORE, Answers
from tasks.dsg import written
from tasks.dsg.answers import parse
from tasks.dsg.captions import Caption, Other, Questioned, judged_row
from tasks.dsg.questions import Asked, Graph, Question, repair
from tasks.dsg.sequential import rank
from tasks.dsg.settings import EndpointJudgeSettings
from tasks.dsg.verdicts import Examination, Examined

log = logging.getLogger(__name__)

MALFORMED, MISSING = UNQUESTIONED = ("questions_malformed", "questions_missing")
"""Why a caption cannot be judged: what came is no list of questions; nothing came."""
_NOTHING = Graph((), ())


class _Clip(NamedTuple):
    """What the model is shown of a clip."""

    clip: str
    frames: list[int]
    """Numbers of its stills that are asked about."""
    pictures: list[bytes]
    digests: list[bytes]

    def shown(self, frame: int | None) -> list[bytes]:
        return self.pictures if frame is None else [self.pictures[frame]]

    def item(self, question: Question, frame: int | None) -> str:
        """Return what identifies a question about a frame, or all."""
        digests = self.digests if frame is None else [self.digests[frame]]
        return f"{self.clip} {hashlib.sha256(b''.join(digests) + question.text.encode()).hexdigest()}"


class _Open(NamedTuple):
    """A caption whose questions are being answered."""

    clip: _Clip
    sentences: list[str]
    own: Examination
    decoys: Examination | None

    @property
    def examinations(self) -> list[Examination]:
        return [self.own] if self.decoys is None else [self.own, self.decoys]

    def questioned(self, of: Examination) -> Questioned:
        """Return the questions with their answers, frames numbered as the clip's stills are."""
        found = of.examined()
        evidence = tuple(
            one if one.frame is None else one._replace(frame=self.clip.frames[one.frame]) for one in found.evidence
        )
        return Questioned(of.graph, Examined(found.verdicts, evidence))


class JudgingByModels:
    """Judges captions of whatever videos.

    Args:
        settings: the models.
        seed: by which the objects are drawn that decoys are.
        store: file of the answers.

    Raises:
        FileNotFoundError, ValueError: a prompt is none.
    """

    def __init__(self, settings: EndpointJudgeSettings, seed: int, store: Path = STORE) -> None:
        self._count, self._seed, self._store = settings.frames, seed, store
        places = {"caption": "the caption's numbered sentences"}
        self._writer = PromptedModel(
            settings.questions, "dsg questions", places, "dsg.judge.questions.prompt", written.FORMAT
        )
        places = {"question": "the question", "frames": "the number of frames"}
        self._answerer = PromptedModel(settings.answers, "dsg answers", places, "dsg.judge.answers.prompt")
        self.name = settings.answers.endpoint.model
        self.prompt_sha256 = self._answerer.prompt.sha256
        self.made_with: Mapping[str, Any] = {
            name: {"model": model.settings.endpoint.model, "prompt_sha256": model.prompt.sha256}
            for name, model in (("questions", self._writer), ("answers", self._answerer))
        }

    def objects(self, captions: Sequence[Caption]) -> list[int]:
        """Return how many objects each caption names; none where its questions are not to be had.

        Raises:
            TryLaterError, ValueError: an endpoint is gone, or refuses every request.
        """
        own = [Other(caption.clip, caption.text) for caption in captions]
        with Answers(self._store) as answers:
            graphs = self._graphs(own, answers)
        return [
            sum(question.kind == "object" for question in graph.questions) if isinstance(graph, Graph) else 0
            for graph in (graphs[one] for one in own)
        ]

    def judge(self, captions: Sequence[Caption]) -> list[dict[str, Any]]:
        """Return what was counted in each caption, or its status and reason where it cannot be judged.

        Raises:
            TryLaterError, ValueError: an endpoint is gone, or refuses every request; what it has answered is stored.
        """
        with Answers(self._store) as answers:
            texts = [Other(caption.clip, caption.text) for caption in captions]
            graphs = self._graphs([*texts, *(other for caption in captions for other in caption.others)], answers)
            opened = [self._open(caption, graphs) for caption in captions]
            self._answer([one for one in opened if isinstance(one, _Open)], answers)
        return [
            {"status": "failed", "reason": one}
            if isinstance(one, str)
            else judged_row(
                one.sentences,
                one.questioned(one.own),
                None if one.decoys is None else one.questioned(one.decoys),
                self,
            )
            for one in opened
        ]

    def _graphs(self, texts: Iterable[Other], answers: Answers) -> dict[Other, Graph | str]:
        """Return the questions of each caption, or the reason why it has none."""
        sentences = {one: sentences_of(one.text) for one in texts}
        items = {one: _item(one) for one, own in sentences.items() if own}
        asked = {
            item: partial(self._writer.body, {"caption": written.numbered(sentences[one])}, [])
            for one, item in items.items()
        }
        found = self._writer.ask(asked.items(), answers)
        graphs: dict[Other, Graph | str] = dict.fromkeys(sentences, _NOTHING)
        for one, item in items.items():
            answer = found[item].answer
            try:
                graphs[one] = (
                    MISSING if answer is None else repair(written.read_questions(answer.content, len(sentences[one])))
                )
            except MalformedError as error:
                log.warning("%s: no questions about its caption: %s", one.clip, error)
                graphs[one] = MALFORMED
        return graphs

    def _open(self, caption: Caption, graphs: dict[Other, Graph | str]) -> _Open | str:
        """Return a caption with its questions, or the reason why it cannot be judged."""
        if not all(map(is_whole_jpeg, caption.stills)):
            return "bad_still"
        graph = graphs[Other(caption.clip, caption.text)]
        if isinstance(graph, str):
            return graph
        frames = spread(range(len(caption.stills)), self._count)
        pictures = [caption.stills[at] for at in frames]
        digests = [hashlib.sha256(picture).digest() for picture in pictures]
        others = [found for other in caption.others if isinstance(found := graphs[other], Graph)]
        decoys = repair(decoys_of(caption, graph, others, self._seed))
        return _Open(
            _Clip(caption.clip, frames, pictures, digests),
            sentences_of(caption.text),
            Examination(graph, len(frames)),
            Examination(decoys, len(frames)) if decoys.questions else None,
        )

    def _answer(self, opened: list[_Open], answers: Answers) -> None:
        """Have all questions answered, a frame of each that is open at a time."""
        while wanted := [
            (one.clip.item(question, frame), one.clip, examination, question, frame)
            for one in opened
            for examination in one.examinations
            for question, frame in examination.wanted()
        ]:
            bodies: dict[str, Callable[[], bytes]] = {
                item: partial(self._body, clip, question, frame) for item, clip, _, question, frame in wanted
            }
            found = self._answerer.ask(bodies.items(), answers)
            for item, _, examination, question, frame in wanted:
                answer = found[item].answer
                examination.take(question.id, frame, parse(None if answer is None else answer.content))

    def _body(self, clip: _Clip, question: Question, frame: int | None) -> bytes:
        shown = clip.shown(frame)
        return self._answerer.body({"question": question.text, "frames": len(shown)}, shown)


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a caption that have a letter in them."""
    return [one for one in cleaning.sentences(text) if any(letter.isalpha() for letter in one)]


def decoys_of(caption: Caption, graph: Graph, others: Sequence[Graph], seed: int) -> list[Asked]:
    """Return questions about objects of other clips' captions that this one does not name: no is the right answer.

    Of each of the others one object, drawn, whose name is nowhere in the caption and not that of a decoy before.
    """
    known = {question.key for question in graph.questions}
    text, found = caption.text.lower(), list[Asked]()
    for other in others:
        new = [one for one in other.questions if one.kind == "object" and one.key not in known and one.key not in text]
        if new:
            drawn = min(new, key=lambda one: rank(f"{caption.clip} {one.key}", seed))
            known.add(drawn.key)
            found.append(Asked(len(found) + 1, "object", drawn.text, key=drawn.key))
    return found


def _item(one: Other) -> str:
    return f"{one.clip} {hashlib.sha256(one.text.encode()).hexdigest()}"
