"""Categories by a model behind an endpoint: it reads the caption and the list, and answers with one JSON object."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tasks.captions import cleaning
from tasks.captions.answers import unfit
from tasks.categories.found import Found
from tasks.categories.settings import OTHER, AskedSettings, Category
from tasks.chat.answers import Answer, MalformedError, read_object
from tasks.chat.client import Reply
from tasks.chat.prompted import PromptedModel
from tasks.chat.store import Answers

_PLACES = {"categories": "the list of categories", "caption": "the caption"}
NOT_LISTED = "not_listed"
"""Reason of an answer that names none of the categories."""
_NAME = "category"


class Asked:
    """A model that says of which category captions are.

    Args:
        settings: which, and how it is asked.
        listed: the categories.
        store: file of the answers.

    Raises:
        FileNotFoundError, ValueError: the prompt is none (`read_prompt`).
    """

    def __init__(self, settings: AskedSettings, listed: Sequence[Category], store: Path) -> None:
        self._store = store
        self._names = (*(category.name for category in listed), OTHER)
        self._list = "\n".join(f"- {category.name}: {category.description}" for category in listed)
        self._model = PromptedModel(
            settings, "category", _PLACES, "categories.by.prompt", _format(self._names), {"listed": self._list}
        )
        self.prompt = self._model.prompt

    def categorise(self, captions: Sequence[Mapping[str, Any]]) -> list[Found]:
        """Return the category of each caption, other with the reason where the model gives none.

        Args:
            captions: with `clip` and `text`.

        Raises:
            TryLaterError: the endpoint is gone.
            ValueError: the endpoint refuses every request.
        """
        items = [item_of(row["clip"], row["text"]) for row in captions]
        bodies = [partial(self._model.body, {"categories": self._list, "caption": row["text"]}) for row in captions]
        with Answers(self._store) as answers:
            replies = self._model.ask(zip(items, bodies, strict=True), answers)
        return [self._found(replies[item]) for item in items]

    def _found(self, reply: Reply) -> Found:
        if reply.answer is None:
            return Found(OTHER, reason=reply.reason)
        return named_by(reply.answer, self._names)


def _format(names: Sequence[str]) -> dict[str, Any]:
    """Return the `response_format` of a request."""
    schema = {
        "type": "object",
        "properties": {_NAME: {"type": "string", "enum": list(names)}},
        "required": [_NAME],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": _NAME, "strict": True, "schema": schema}}


def item_of(clip: str, text: str) -> str:
    """Return what identifies a caption: by its clip first, so that what is stored of a clip can be forgotten."""
    return f"{clip} {hashlib.sha256(text.encode()).hexdigest()}"


def named_by(answer: Answer, names: Sequence[str]) -> Found:
    """Return the category that an answer names, or why it names none. Nothing but one JSON object is an answer."""
    if (reason := unfit(answer)) is not None:
        return Found(OTHER, reason=reason)
    try:
        found = read_object(cleaning.unwrapped(answer.content).text)
    except MalformedError:
        return Found(OTHER, reason="malformed")
    if found.keys() != {_NAME} or not isinstance(found[_NAME], str):
        return Found(OTHER, reason="malformed")
    if found[_NAME] not in names:
        return Found(OTHER, reason=NOT_LISTED)
    return Found(found[_NAME])
