"""Categories by a model behind an endpoint: it reads the caption and the list, and answers with one JSON object."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.captions import cleaning
from tasks.captions.prompts import Prompt, read_prompt
from tasks.categories.found import Found
from tasks.categories.settings import OTHER, AskedSettings, Category
from tasks.chat.answers import Answer, MalformedError, read_object
from tasks.chat.client import Question, client
from tasks.chat.store import Answers, key_of

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
        self.settings, self._store = settings, store
        self.prompt = read_prompt(Path(settings.prompt), _PLACES, "categories.by.prompt")
        self._names = (*(category.name for category in listed), OTHER)
        self._list = "\n".join(f"- {category.name}: {category.description}" for category in listed)
        self._asked = key_of(asked(settings, self.prompt, self._list))

    def categorise(self, captions: Sequence[Mapping[str, Any]]) -> list[Found]:
        """Return the category of each caption, other with the reason where the model gives none.

        Args:
            captions: with `clip` and `text`.

        Raises:
            TryLaterError: the endpoint is gone.
            ValueError: the endpoint refuses every request.
        """
        items = [item_of(row["clip"], row["text"]) for row in captions]
        with Answers(self._store) as answers:
            known = answers.find(self._asked, items)
            questions = [
                Question(item, self._body(row["text"]))
                for item, row in zip(items, captions, strict=True)
                if item not in known
            ]
            replies = {}
            if questions:
                given = client(self.settings.endpoint).ask(questions, self._asked, answers)
                replies = {question.item: reply for question, reply in zip(questions, given, strict=True)}
        return [
            self._found(known[item], None) if item in known else self._found(replies[item].answer, replies[item].reason)
            for item in items
        ]

    def _body(self, text: str) -> bytes:
        """Return the body of a request: Chat Completions."""
        settings = self.settings
        content = self.prompt.filled({"categories": self._list, "caption": text})
        schema = {
            "type": "object",
            "properties": {_NAME: {"type": "string", "enum": list(self._names)}},
            "required": [_NAME],
            "additionalProperties": False,
        }
        request = {
            "model": settings.endpoint.model,
            "messages": [{"role": "user", "content": [{"type": "text", "text": content}]}],
            "temperature": settings.temperature,
            "seed": settings.seed,
            "max_tokens": settings.max_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": _NAME, "strict": True, "schema": schema},
            },
        }
        return json.dumps(request).encode()

    def _found(self, answer: Answer | None, reason: str | None) -> Found:
        if answer is None:
            return Found(OTHER, reason=reason)
        return named_by(answer, self._names)


def asked(settings: AskedSettings, prompt: Prompt, listed: str) -> dict[str, Any]:
    """Return all that decides an answer beside the caption: another of any of these is another question."""
    sampling = {name: getattr(settings, name) for name in ("temperature", "seed", "max_tokens")}
    return {"kind": "category", "model": settings.endpoint.model, "prompt": prompt.text, "listed": listed, **sampling}


def item_of(clip: str, text: str) -> str:
    """Return what identifies a caption: by its clip first, so that what is stored of a clip can be forgotten."""
    return f"{clip} {hashlib.sha256(text.encode()).hexdigest()}"


def named_by(answer: Answer, names: Sequence[str]) -> Found:
    """Return the category that an answer names, or why it names none. Nothing but one JSON object is an answer."""
    content = answer.content
    has_thought = answer.reasoning or cleaning.is_unfinished_thought(content)
    is_blank = not content.strip() or cleaning.is_unfinished_thought(content)
    if answer.refusal or answer.finish_reason == "content_filter":
        return Found(OTHER, reason="refused")
    if answer.finish_reason == "length":
        return Found(OTHER, reason="thinking_spent_budget" if is_blank and has_thought else "truncated")
    if is_blank:
        return Found(OTHER, reason="empty")
    try:
        found = read_object(cleaning.unwrapped(content).text)
    except MalformedError:
        return Found(OTHER, reason="malformed")
    if found.keys() != {_NAME} or not isinstance(found[_NAME], str):
        return Found(OTHER, reason="malformed")
    if found[_NAME] not in names:
        return Found(OTHER, reason=NOT_LISTED)
    return Found(found[_NAME])
