"""Questions about captions of the embedded corpus `shapes`, by rules over their words: no language model is asked.

What the rules know is what `shapes.judge` can see: shapes are objects, colours attributes of them, and directions
relations. Other words make no question.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from tasks.demo.shapes import COLOURS, DIRECTIONS, SHAPES
from tasks.dsg.questions import Asked, Kind

_TEMPLATES: dict[Kind, str] = {
    "object": "Is there a {shape}?",
    "attribute": "Is the {shape} {word}?",
    "relation": "Does the {shape} move {word}?",
}
PROMPT_SHA256 = hashlib.sha256(repr(sorted(_TEMPLATES.items())).encode()).hexdigest()
"""Of how questions are worded."""

_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+|[。！？]|\n+")


_KNOWN = (SHAPES, COLOURS, DIRECTIONS)


class Said(NamedTuple):
    """The words of one sentence that make questions, each once, in the order of their lists."""

    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    directions: tuple[str, ...]

    @property
    def of_single_shape(self) -> list[tuple[Kind, str]]:
        """The colour and the direction of the one shape that is named; none where there are several of a kind."""
        if len(self.shapes) != 1:
            return []
        kinds: list[tuple[Kind, tuple[str, ...]]] = [("attribute", self.colours), ("relation", self.directions)]
        return [(kind, words[0]) for kind, words in kinds if len(words) == 1]


def sentences(text: str) -> list[str]:
    """Return the sentences of a text that have a letter in them."""
    return [part for part in _END_OF_SENTENCE.split(text) if any(letter.isalpha() for letter in part)]


def said(sentence: str) -> Said:
    """Return what a sentence says, in the words that `shapes.said` knows."""
    words = set(re.findall(r"[a-z]+", sentence.lower()))
    return Said(*(tuple(word for word in known if word in words) for known in _KNOWN))


def questions(text: str) -> list[Asked]:
    """Return the questions of a caption: of each sentence its shapes, and of a single shape its colour and direction.

    Where a sentence names several shapes, colours or directions, what belongs to what is not asked.
    """
    asked: list[Asked] = []
    for number, sentence in enumerate(sentences(text)):
        found = said(sentence)
        parent = len(asked) + 1
        asked += [_asked(parent + at, "object", shape, "", number) for at, shape in enumerate(found.shapes)]
        for kind, word in found.of_single_shape:
            asked.append(_asked(len(asked) + 1, kind, found.shapes[0], word, number, (parent,)))
    return asked


DECOY_PARENT = 1
"""Id of the question about a caption's own shape among its decoys. It is no decoy itself."""


def decoys(text: str, others: Sequence[str]) -> list[Asked]:
    """Return questions about what other clips' captions say and this one does not: no is the right answer.

    Decoys are the shapes of the other captions and, of this one's only shape, a colour and a direction of theirs. These
    depend on whether the shape is there, which is asked as `DECOY_PARENT`.
    """
    own = said(text)
    found = [said(other) for other in others]
    new = dict.fromkeys(shape for one in found for shape in one.shapes if shape not in own.shapes)
    asked = [_asked(DECOY_PARENT + 1 + at, "object", shape, "", 0) for at, shape in enumerate(new)]
    mine = dict(own.of_single_shape)
    theirs = {kind: word for one in found for kind, word in one.of_single_shape if mine.get(kind, word) != word}
    if not mine:
        return asked
    for kind, word in theirs.items():
        asked.append(_asked(DECOY_PARENT + 1 + len(asked), kind, own.shapes[0], word, 0, (DECOY_PARENT,)))
    return [_asked(DECOY_PARENT, "object", own.shapes[0], "", 0), *asked]


def _asked(number: int, kind: Kind, shape: str, word: str, sentence: int, parents: tuple[int, ...] = ()) -> Asked:
    text = _TEMPLATES[kind].format(shape=shape, word=word)
    return Asked(number, kind, text, parents, (sentence,), shape if kind == "object" else "")
