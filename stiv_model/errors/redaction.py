"""Passwords and signatures taken out of texts before these are printed, logged or handed to Prefect.

What is taken out: the user's part of a URL (`https://user:password@host`), and the values of query parameters by whose
name a request proves who makes it (`X-Amz-Signature`, `sig`, `token` ...). Imports nothing that takes time.
"""

import functools
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MARK = "***"
"""Stands where something was taken out."""

_SCHEME = r"(:/{2,}|\b(?:https?|s3|gs|ftp|ray):/)"  # one slash: of a Path
_USER = re.compile(rf"{_SCHEME}[^\s/?#<>]*@", re.IGNORECASE)
_USER_WITH_SLASH = re.compile(rf"{_SCHEME}[^\s/?#<>@:]+:(?!\d+(?:[/?#\s]|$))[^\s<>]*@", re.IGNORECASE)
"""One whose password has a slash, which should be written %2F; a number after the colon is a port."""
_USER_ENCODED = re.compile(r"(%3A(?:%2F)+)(?:(?!%2F|%3F|%23|%26)[^\s/?#<>&])*%40", re.IGNORECASE)
"""One of a URL within another."""
_BEFORE, _IS, _VALUE = r"(?:[?&;#]|%3F|%26|%3B|%23)", "(?:=|%3D)", r"[^\s&;#\"'<>]*[^\s&;#\"'<>,.)]"
_PROOF = re.compile(
    rf"({_BEFORE}(?:[\w.~-]*(?:signature|credential|passw|secret|access-?_?key|api-?_?key|accessid|jwt|hmac)[\w.~-]*"
    rf"|[\w.~-]*token|(?:[\w.~-]*[-_.])?(?:sig|sign|key|auth|sas|pwd|policy)|key-pair-id|authorization|hdn\w*){_IS})"
    rf"{_VALUE}",
    re.IGNORECASE,
)
"""A parameter by which a request proves who makes it: of S3, GCS, Azure, CloudFront, Akamai and others."""
_PASSWORD = re.compile(r"((?:^|[\s,'\"({])[\w.-]*(?:password|passwd|secret)=)[^\s,;\"'<>&)}]+", re.IGNORECASE)
_HEADER = re.compile(r"(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:basic|bearer|token)\s+)?)[^\s,'\"]+", re.IGNORECASE)


def redact(text: str) -> str:
    """Return a text with `***` in the place of every password and signature."""
    if "@" in text:
        text = _USER_WITH_SLASH.sub(rf"\1{MARK}@", _USER.sub(rf"\1{MARK}@", text))
    if "%40" in text:
        text = _USER_ENCODED.sub(rf"\1{MARK}%40", text)
    if "=" in text or "%3" in text:
        text = _PASSWORD.sub(rf"\1{MARK}", _PROOF.sub(rf"\1{MARK}", text))
    return _HEADER.sub(rf"\1{MARK}", text) if "uthorization" in text.lower() else text


def has_secret(text: str) -> bool:
    """Say whether `redact` would take something out of a URL. A file may be named as it likes."""
    return ":/" in text and redact(text) != text


def refuse(values: Any, place: str) -> None:
    """Refuse what is about to be stored, in tables or by Prefect, where a password or signature stands in it.

    Args:
        values: a text, a path, or a mapping or list of such at any depth; others pass.
        place: where they stand: an option, a key of params.yaml.

    Raises:
        ValueError: with the first, its secret taken out.
    """
    for name, text in _texts(values, place):
        if has_secret(text):
            raise ValueError(
                f"{name} is {redact(text)}, with a password or a signature in it, which would be stored: leave it out, "
                "and name it where only you can read it (~/.aws/credentials, ~/.netrc, or a variable)"
            )


def _texts(values: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(values, str):
        yield place, values
    elif isinstance(values, Path):
        yield place, str(values)
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _texts(value, f"{place}.{key}" if place else str(key))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value, place)


def redact_error(error: BaseException) -> None:
    """Take passwords and signatures out of an error, and of those that it comes from, where they are kept as texts."""
    seen = set[int]()
    rest: list[BaseException | None] = [error]
    while rest:
        one = rest.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in one.args)
        if isinstance(one, OSError):  # it says these, not its arguments
            for name in ("strerror", "filename", "filename2"):
                if isinstance(value := getattr(one, name), str) and redact(value) != value:
                    setattr(one, name, redact(value))
        rest += [one.__cause__, one.__context__]


def redacted(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function raise its errors redacted: what Prefect stores of a run that fails is what it raised.

    Raises:
        RuntimeError, ValueError: the redacted words of an error that cannot be changed, as those of pydantic.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            redact_error(error)
            said = str(error)
            if redact(said) == said:
                raise
            kind = ValueError if isinstance(error, ValueError) else RuntimeError
            raise kind(f"{type(error).__name__}: {redact(said)}") from None

    return call


def install() -> None:
    """Redact every log record, warning and traceback that this process makes from now on."""
    if getattr(logging.getLogRecordFactory(), "redacts", False):
        return
    make = logging.getLogRecordFactory()

    def make_redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            said = record.getMessage()
        except Exception:  # its handler says so, and of what line
            return record
        if (shown := redact(said)) != said:
            record.msg, record.args = shown, None
        if record.exc_info and isinstance(record.exc_info[1], BaseException):
            told = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if redact(told) != told:
                record.exc_text = redact(told)  # what formatters take, where it is there
        return record

    make_redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_redacted)
    formatted = warnings.formatwarning
    warnings.formatwarning = lambda *args, **kwargs: redact(formatted(*args, **kwargs))
    sys.excepthook = _tell


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
