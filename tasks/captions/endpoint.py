"""Backend `endpoint`: a model behind servers of Chat Completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.captions.answers import TEXTS, Form
from tasks.captions.backends import Question
from tasks.captions.settings import EndpointCaptionerSettings
from tasks.chat import client
from tasks.chat.request import request_body
from tasks.chat.store import Answers

_SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in TEXTS},
    "required": list(TEXTS),
    "additionalProperties": False,
}
FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "caption", "strict": True, "schema": _SCHEMA},
}
"""`response_format` of a request for both texts."""


class EndpointBackend:
    """Pictures go into the requests as they are, JPEG bytes that were made in the sandbox: nothing is decoded.

    Args:
        settings: the servers, and how they are asked.
    """

    shows_videos = False

    def __init__(self, settings: EndpointCaptionerSettings) -> None:
        self._settings = settings
        sampling = {name: getattr(settings, name) for name in ("temperature", "seed", "max_tokens")}
        self.decides: Mapping[str, Any] = {"model": settings.endpoint.model, **sampling}
        self.made_with: Mapping[str, Any] = self.decides

    def ask(self, questions: Sequence[Question], form: Form, asked: str, answers: Answers) -> list[client.Reply]:
        """Return a reply to each question, in their order (`Backend.ask`).

        Raises:
            TryLaterError: the endpoint is gone.
            ValueError: it refuses every request.
        """
        bodies = [
            client.Question(question.item, question_body(self._settings, question.text, question.pictures, form))
            for question in questions
        ]
        return client.client(self._settings.endpoint).ask(bodies, asked, answers)


def question_body(settings: EndpointCaptionerSettings, text: str, pictures: Sequence[bytes], form: Form) -> bytes:
    """Return the body of a request: Chat Completions, the pictures first, as data URLs."""
    sampling = {
        "model": settings.endpoint.model,
        "temperature": settings.temperature,
        "seed": settings.seed,
        "max_tokens": settings.max_tokens,
        **({"response_format": FORMAT} if form == "json" else {}),
    }
    return request_body(text, pictures, sampling)
