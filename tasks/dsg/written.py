"""Questions that a language model writes about a caption, read strictly: what is not of the shape is none."""

from typing import Any, get_args

from tasks.captions import cleaning
from tasks.chat.answers import MalformedError, read_object
from tasks.dsg.questions import KINDS, Asked, Kind

_FIELDS = {
    "id": {"type": "integer"},
    "kind": {"type": "string", "enum": list(get_args(Kind))},
    "text": {"type": "string"},
    "parents": {"type": "array", "items": {"type": "integer"}},
    "sentence": {"type": "integer"},
    "object": {"type": "string"},
}
_QUESTION = {"type": "object", "properties": _FIELDS, "required": list(_FIELDS), "additionalProperties": False}
_ANSWER = {
    "type": "object",
    "properties": {"questions": {"type": "array", "items": _QUESTION}},
    "required": ["questions"],
    "additionalProperties": False,
}
FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "questions", "strict": True, "schema": _ANSWER},
}
"""`response_format` of the request."""

_MOST_QUESTIONS = 200
_LONGEST_TEXT, _LONGEST_OBJECT = 300, 60  # characters
_HIGHEST_ID = 1_000_000


def numbered(sentences: list[str]) -> str:
    """Return a caption's sentences as the model is shown them, a number before each."""
    return "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(sentences, start=1))


def read_questions(content: str, sentences: int) -> list[Asked]:
    """Return the questions in a model's answer. Whatever it has as parents is left to `questions.repair`.

    Signs that nobody sees are taken out of the texts, and an end of a line is a space.

    Args:
        content: one JSON object, alone or in a fence of Markdown.
        sentences: how many the caption has.

    Raises:
        MalformedError: it is anything else, or has a question of another kind, of a sentence that there is not,
            without a text, or of an object without a name.
    """
    found = read_object(cleaning.unwrapped(content).text)
    questions = found.get("questions")
    if found.keys() != {"questions"} or not isinstance(questions, list) or len(questions) > _MOST_QUESTIONS:
        raise MalformedError("no list of questions")
    return [_question(one, sentences) for one in questions]


def _question(written: Any, sentences: int) -> Asked:
    if not isinstance(written, dict) or written.keys() != _FIELDS.keys():
        raise MalformedError("a question of other keys")
    kind = written["kind"]
    if kind not in KINDS:
        raise MalformedError("a question of an unknown kind")
    number, sentence = (_whole(written[name]) for name in ("id", "sentence"))
    if not 1 <= number <= _HIGHEST_ID or not 1 <= sentence <= sentences:
        raise MalformedError("a question of a number that is none, or of no sentence")
    text, name = _text(written["text"], _LONGEST_TEXT), _text(written["object"], _LONGEST_OBJECT)
    if not text or (kind == "object" and not name):
        raise MalformedError("a question without words")
    return Asked(number, kind, text, written["parents"], (sentence - 1,), name.lower() if kind == "object" else "")


def _whole(written: Any) -> int:
    if not isinstance(written, int) or isinstance(written, bool):
        raise MalformedError("a number that is none")
    return written


def _text(written: Any, longest: int) -> str:
    if not isinstance(written, str):
        raise MalformedError("a text that is none")
    text = cleaning.clean(written, ()).text
    if len(text) > longest:
        raise MalformedError("a text that is too long")
    return text
