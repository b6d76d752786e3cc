"""What a model's answer says of a clip, or why it is no caption: read strictly, never guessed at."""

from typing import Literal

from tasks.captions import cleaning, outcomes
from tasks.captions.captioner import Said
from tasks.chat.answers import Answer, MalformedError, read_object
from tasks.chat.client import Reply

Form = Literal["json", "text"]
"""What an answer shall be: a JSON object of two texts, or the caption itself."""
TEXTS = ("text", "short")
"""Keys of that object."""


def said_in(reply: Reply, form: Form) -> Said:
    """Return what came of a question."""
    return Said(None, reason=reply.reason) if reply.answer is None else said_by(reply.answer, form)


def said_by(answer: Answer, form: Form) -> Said:
    """Return what an answer says, or why it is no caption."""
    content, reason = answer.content, unfit(answer)
    if reason is not None:
        return Said(None, raw=content, reason=reason)
    return Said(content, raw=content) if form == "text" else _read_json(content)


def unfit(answer: Answer) -> str | None:
    """Return why an answer says nothing, whatever was asked; None where it has something to read."""
    content = answer.content
    has_thought = answer.reasoning or cleaning.is_unfinished_thought(content)
    is_blank = not content.strip() or cleaning.is_unfinished_thought(content)
    if answer.refusal or answer.finish_reason == "content_filter":
        return "refused"
    if answer.finish_reason == "length":
        return "thinking_spent_budget" if is_blank and has_thought else "truncated"
    return "empty" if is_blank else None


def _read_json(content: str) -> Said:
    """Return the two texts of an answer in JSON, which may stand in a fence of Markdown and after a thought."""
    bare, rules = cleaning.unwrapped(content)
    try:
        found = read_object(bare)
    except MalformedError:
        return Said(None, raw=content, reason="refused" if outcomes.is_refusal(bare) else "malformed", rules=rules)
    if found.keys() != set(TEXTS) or not all(isinstance(text, str) for text in found.values()):
        return Said(None, raw=content, reason="malformed", rules=rules)
    text, short = (_without_surrogates(found[name]) for name in TEXTS)
    return Said(text, short, content, rules=rules)


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
