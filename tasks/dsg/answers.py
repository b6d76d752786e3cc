"""Answers of a judge, taken strictly: what is not exactly yes or no says nothing."""

from typing import Literal

Answer = Literal["yes", "no", "unclear", "missing"]
"""unclear: anything else that was said; missing: nothing was said, such as a call that failed."""

_MOST_CHARACTERS = 64
"""Of an answer that may be a yes with space around it; longer ones are not looked at."""
_END = ".,;:!。！"


def parse(said: object) -> Answer:
    """Return what was answered: yes and no in any case, with space around and a mark at the end.

    "Yes, there is a bus", "no bus", "0000", "", 1 and true are unclear; None is missing.
    """
    if said is None:
        return "missing"
    if not isinstance(said, str) or len(said) > _MOST_CHARACTERS:
        return "unclear"
    word = said.strip().rstrip(_END).rstrip().lower()
    if word == "yes":
        return "yes"
    return "no" if word == "no" else "unclear"
