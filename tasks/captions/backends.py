"""Where models run: a backend answers questions of text and pictures, and each of its answers is stored.

Captioners know only this protocol: what is asked, and what becomes of the answers, is the same wherever a model runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tasks.captions.answers import Form
from tasks.chat.answers import Answer
from tasks.chat.client import Reply
from tasks.chat.store import Answers, key_of


class Question(NamedTuple):
    """What is asked about one item."""

    item: str
    """The clip's id, a space, and what identifies all that is shown of it."""
    text: str
    """The prompt."""
    pictures: Sequence[bytes] = ()
    """JPEG bytes, in order of time."""
    times: Sequence[float] = ()
    """The second of each, where they are frames of one video for a model that is shown videos."""
    seconds: float = 0.0
    """Length of that video."""


class Backend(Protocol):
    """A model, wherever it runs."""

    made_with: Mapping[str, Any]
    """What a row says of it, by the names of its columns."""
    decides: Mapping[str, Any]
    """All that decides its answers beside the question: another of any of these is another model."""
    shows_videos: bool
    """Whether it takes the pictures of a question as frames of one video, at their times."""

    def ask(self, questions: Sequence[Question], form: Form, asked: str, answers: Answers) -> list[Reply]:
        """Return a reply to each question, in their order, each stored as it comes.

        Args:
            questions: of different items.
            form: that the answers shall have; nothing is believed of it.
            asked: `key_of` what else decides the answers.
            answers: where they are stored.

        Raises:
            TryLaterError: the model cannot answer now; what it has answered is stored.
            ValueError: it can answer no question like these.
        """


class Asker:
    """Asks a backend, and nothing twice.

    Args:
        backend: that answers.
        form: of the answers.
        decides: what decides an answer beside the item and the backend: prompt, kind of question.
    """

    def __init__(self, backend: Backend, form: Form, decides: Mapping[str, Any]) -> None:
        self._backend, self._form = backend, form
        self._asked = key_of({**backend.decides, **decides})

    def ask(self, questions: Sequence[Question], answers: Answers) -> dict[str, Reply]:
        """Return the replies by item: those that are stored, and those of the backend to all other questions.

        Raises:
            TryLaterError, ValueError: as `Backend.ask`.
        """
        by_item = {question.item: question for question in questions}
        known = self.known(list(by_item), answers)
        replies = {item: Reply(answer, None) for item, answer in known.items()}
        if new := [question for item, question in by_item.items() if item not in known]:
            given = self._backend.ask(new, self._form, self._asked, answers)
            replies |= {question.item: reply for question, reply in zip(new, given, strict=True)}
        return replies

    def known(self, items: Sequence[str], answers: Answers) -> dict[str, Answer]:
        """Return the answers about those of the items that have one."""
        return answers.find(self._asked, items)
