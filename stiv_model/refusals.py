"""What pydantic refuses, in lines for whoever wrote the values."""

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
    return [_line(problem) for problem in error.errors()]


def reason(problem: ErrorDetails) -> str:
    """Return what is wrong, without the words that pydantic puts before those of our validators."""
    return problem["msg"].removeprefix("Value error, ")


def _line(problem: ErrorDetails) -> str:
    place, found = ".".join(map(str, problem["loc"])), problem["input"]
    if not place:  # the whole file; our validators name the keys
        return reason(problem)
    value = f" (found {found!r})" if isinstance(found, str | int | float | bool) else ""
    return f"{place}: {reason(problem)}{value}"
