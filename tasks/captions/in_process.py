"""Backend `transformers`: a model of transformers in the stage's own process, in batches, greedily."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stiv_model.captioner import hub_files
from tasks.captions.answers import Form
from tasks.captions.backends import Question
from tasks.captions.settings import TransformersCaptionerSettings
from tasks.chat.answers import Answer
from tasks.chat.client import Reply
from tasks.chat.store import Answers

if TYPE_CHECKING:
    from stiv_model.captioner.hub_model import HubModel


class TransformersBackend:
    """The model is loaded when it is asked first, once in a process.

    Args:
        settings: which model, and how it is run.

    Raises:
        FileNotFoundError, ValueError: there is no such model, or it is not what it says (`hub_files.find`).
    """

    def __init__(self, settings: TransformersCaptionerSettings) -> None:
        self._settings, self._place = settings, f"captions.captioners.{settings.name}"
        self._folder = hub_files.find(self._place, settings.source, settings.revision)
        model = hub_files.identity(self._folder, settings.source, settings.revision)
        self.shows_videos = settings.shown == "video"
        # always the likeliest word: nothing is drawn, so that there is no seed
        self.made_with: Mapping[str, Any] = {"model": model, "temperature": 0.0, "max_tokens": settings.max_tokens}
        self.decides: Mapping[str, Any] = {
            "backend": settings.backend,
            "model": model,
            "max_tokens": settings.max_tokens,
            "precision": settings.precision,
            "shown": settings.shown,
        }

    def ask(self, questions: Sequence[Question], form: Form, asked: str, answers: Answers) -> list[Reply]:
        """Return a reply to each question, in their order (`Backend.ask`); one whose picture is none is malformed.

        Raises:
            FileNotFoundError, ValueError: the model does not load, or not here, or its questions are too long.
        """
        from stiv_model.captioner import hub_model  # torch: only where a clip is captioned

        model = _opened(self._folder, self._settings, self._place)
        replies: dict[str, Reply] = {}
        for batch in _batches(questions, self._settings.batch):
            looks = {}
            for question in batch:
                try:
                    pictures = [hub_model.read_picture(picture) for picture in question.pictures]
                except ValueError:
                    replies[question.item] = Reply(None, "malformed")
                else:
                    looks[question.item] = hub_model.Look(question.text, pictures, question.times, question.seconds)
            if not looks:
                continue
            for item, words in zip(looks, model.answer(list(looks.values()), self._settings.max_tokens), strict=True):
                answer = Answer(
                    content=words.text,
                    finish_reason="stop" if words.is_whole else "length",
                    reasoning=False,
                    refusal=False,
                    prompt_tokens=words.prompt_tokens,
                    completion_tokens=words.tokens,
                )
                answers.put(asked, item, answer)
                replies[item] = Reply(answer, None)
        return [replies[question.item] for question in questions]


def _batches(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Yield batches of questions with as many pictures each: most models batch no others."""
    ordered = sorted(questions, key=lambda question: len(question.pictures))
    for _, group in groupby(ordered, key=lambda question: len(question.pictures)):
        alike = list(group)
        yield from (alike[first : first + size] for first in range(0, len(alike), size))


_OPENED: dict[tuple[Path, str, str], "HubModel"] = {}
_OPENING = threading.Lock()


def _opened(folder: Path, settings: TransformersCaptionerSettings, place: str) -> "HubModel":
    """Return this process's model of a folder, loaded when it is asked for first."""
    from stiv_model.captioner.hub_model import HubModel

    key = (folder, settings.precision, settings.device)
    with _OPENING:
        if key not in _OPENED:
            _OPENED[key] = HubModel(folder, settings.precision, settings.device, place)
        return _OPENED[key]
