"""What a server of Chat Completions answers, read strictly: anything unexpected is malformed, never guessed at."""

import json
from typing import Any, NamedTuple, NoReturn

_MOST_INTEGER_DIGITS = 100


class MalformedError(ValueError):
    """What came is no answer to what was asked; the message says why, without quoting it."""


class Answer(NamedTuple):
    """A model's answer."""

    content: str
    """Its text; empty where it has none."""
    finish_reason: str
    """Why it ends, in the server's words: stop, length, content_filter ...; empty where it does not say."""
    reasoning: bool
    """Whether the server hands on, apart from the text, what the model thought."""
    refusal: bool
    """Whether the model declined, in the field of that name."""
    prompt_tokens: int | None
    completion_tokens: int | None


def read_answer(body: bytes, model: str) -> tuple[Answer, str]:
    """Return the answer in the body of a response, and the id that the server gave it.

    Args:
        body: of a response with status 200.
        model: name that the answer must have.

    Raises:
        MalformedError: it is no JSON, no Chat Completion, has no choice, or is of another model.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise MalformedError("the body is not UTF-8") from None
    completion = read_object(text)
    if completion.get("model") != model:
        raise MalformedError("the answer is of another model")
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise MalformedError("the answer has no choice")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise MalformedError("the choice has no message")
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise MalformedError("the content is no text")
    finish, usage = choices[0].get("finish_reason"), completion.get("usage")
    answer = Answer(
        content=_encodable(content or ""),
        finish_reason=finish if isinstance(finish, str) else "",
        reasoning=bool(message.get("reasoning") or message.get("reasoning_content")),
        refusal=bool(message.get("refusal")),
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
    )
    named = completion.get("id")
    return answer, named if isinstance(named, str) else ""


def read_object(text: str) -> dict[str, Any]:
    """Return the one JSON object that a text is, as RFC 8259 has it.

    Raises:
        MalformedError: it is none, has a key twice, NaN or Infinity, or is nested too deep.
    """
    try:
        found = json.loads(
            text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant, parse_int=_short_integer
        )
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"no JSON: {type(error).__name__}") from None
    if not isinstance(found, dict):
        raise MalformedError("JSON, but no object")
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedError("JSON with a key twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedError(f"JSON with {name}")


def _short_integer(digits: str) -> int:
    if len(digits) > _MOST_INTEGER_DIGITS:
        raise MalformedError("JSON with a number of very many digits")
    return int(digits)


def _encodable(text: str) -> str:
    """Return a text that UTF-8 can hold: JSON may have halves of surrogates."""
    return text.encode("utf-8", "replace").decode()


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
