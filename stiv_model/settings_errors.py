"""What pydantic refuses, in lines for whoever wrote the values."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)


def checked(kind: type[Model], values: Any, place: object) -> Model:
    """Return `values` as `kind`.

    Args:
        place: where they stand, such as a file, for the message.

    Raises:
        ValueError: every wrong key: its dotted name, what is wrong, and the value found; in one line.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError("; ".join(f"{place}: {line}" for line in lines(error))) from None


def lines(error: ValidationError) -> list[str]:
    """Return one line for every wrong key, as `checked` puts them together."""
    problems = error.errors()
    absent = [problem["loc"] for problem in problems if problem["type"] == "missing"]
    return [_line(problem, absent) for problem in problems if not _is_consequence(problem, problems)]


def reason(problem: ErrorDetails) -> str:
    """Return what is wrong, without the words that pydantic puts before those of our validators."""
    return problem["msg"].removeprefix("Value error, ")


def nearest(word: str, known: Iterable[str]) -> str:
    """Ask whether a word that is unknown is a misspelling of one that is known; nothing where none is near."""
    found = get_close_matches(word, list(known), n=1)
    return f": did you mean {found[0]}?" if found else ""


def _line(problem: ErrorDetails, absent: Iterable[tuple[int | str, ...]]) -> str:
    place, found = ".".join(map(str, problem["loc"])), problem["input"]
    if not place:  # the whole file; our validators name the keys
        return reason(problem)
    value = f" (found {found!r})" if isinstance(found, str | int | float | bool) else ""
    return f"{place}: {reason(problem)}{value}{_meant(problem, absent)}"


def _is_consequence(problem: ErrorDetails, problems: Iterable[ErrorDetails]) -> bool:
    """Say whether a list is called too short only because items of it are wrong, which is said of these."""
    place = problem["loc"]
    return problem["type"] == "too_short" and any(
        len(one["loc"]) > len(place) and one["loc"][: len(place)] == place for one in problems
    )


def _meant(problem: ErrorDetails, absent: Iterable[tuple[int | str, ...]]) -> str:
    """Ask, of a key that is unknown, whether it is a misspelling of one that is absent beside it."""
    if problem["type"] != "extra_forbidden":
        return ""
    *section, key = problem["loc"]
    beside = [str(loc[-1]) for loc in absent if list(loc[:-1]) == section]
    return nearest(str(key), beside)
