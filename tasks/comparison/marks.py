"""Which words of a caption say what a judge denies."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tasks.dsg import rules
from tasks.dsg.questions import Kind

_WORD = re.compile(r"\w+")
_OF_QUESTIONS = re.compile(
    r"a|an|and|any|are|at|be|been|being|by|can|did|do|does|for|from|has|have|in|is|it|its|of|on|one|or|some|that|the|"
    r"their|there|these|this|those|to|was|were|what|which|while|who|with"
)
"""Words that questions are made with, whatever they are about."""


class Piece(NamedTuple):
    """A part of a caption."""

    text: str
    kind: Kind | None
    """What is invented here; None: nothing is."""


def mark(text: str, answered: Sequence[Mapping[str, Any]]) -> list[Piece]:
    """Part a caption into what is invented and what is not.

    Of an invented question those words are marked that its sentences share with it and that are not of a question on
    which it depends; all of its first sentence where there is none, as when the question has other words.

    Args:
        answered: rows of schema EVIDENCE of the caption's own questions.
    """
    questions = {one["question"]: one for one in answered if one["role"] == "caption"}
    places = _places(text)
    found: dict[int, Kind] = {}
    for one in questions.values():
        if one["verdict"] != "invented":
            continue
        wanted = _words(one["text"]).difference(*(_words(questions[parent]["text"]) for parent in one["parents"]))
        own = [place for number in one["sentences"] for place in places[number : number + 1]]
        hit = [at for start, end in own for at in _found(text, start, end, wanted)]
        for start, end in hit or own[:1]:
            found |= {at: one["kind"] for at in range(start, end) if at not in found}
    return _pieces(text, found)


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.lower()) if not _OF_QUESTIONS.fullmatch(word)}


def _found(text: str, start: int, end: int, wanted: set[str]) -> list[tuple[int, int]]:
    words = _WORD.finditer(text, start, end)
    return [word.span() for word in words if word[0].lower() in wanted]


def _places(text: str) -> list[tuple[int, int]]:
    """Return where each sentence begins and ends."""
    places, after = [], 0
    for sentence in rules.sentences(text):
        start = text.index(sentence, after)
        after = start + len(sentence)
        places.append((start, after))
    return places


def _pieces(text: str, found: Mapping[int, Kind]) -> list[Piece]:
    pieces: list[Piece] = []
    for at, letter in enumerate(text):
        kind = found.get(at)
        if pieces and pieces[-1].kind == kind:
            pieces[-1] = Piece(pieces[-1].text + letter, kind)
        else:
            pieces.append(Piece(letter, kind))
    return pieces
