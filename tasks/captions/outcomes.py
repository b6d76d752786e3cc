"""Whether a caption may be trained on: every clip is `ok`, or `failed` with one reason of a fixed list."""

import re
from collections.abc import Sequence
from functools import lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from tasks.captions.settings import CheckSettings

REASONS = (
    "no_caption",
    "empty",
    "truncated",
    "thinking_spent_budget",
    "refused",
    "repetition",
    "not_text",
    "language",
    "too_short",
    "too_long",
    "duplicate",
    "timeout",
    "endpoint_error",
    "malformed",
)
"""Why a clip has no caption. The first is of clips for which nobody had an answer."""
MAY_PASS = frozenset({"timeout", "endpoint_error", "malformed"})
"""Those of the way to a model. Where no answer came, which could be stored, the next run asks again; the others would
come again."""

_REFUSALS = (
    r"(?:i(?:['’]m| am) )?(?:very |so )?sorry\b",
    r"(?:unfortunately,? )?i (?:cannot|can['’]t|can not|won['’]t|am unable to|am not able to|do not have)\b",
    r"i['’]m (?:unable|not able|not allowed)\b",
    r"as an? (?:ai|artificial intelligence|language model)\b",
    r"(?:no|there (?:is|are) no) (?:image|video|frame|picture)s? "
    r"(?:was|were|is|are|has|have|provided|attached|given)\b",
)
_REFUSAL = re.compile(rf"\W*(?:{'|'.join(_REFUSALS)})", re.IGNORECASE)
_NO_LETTERS = bytes(code for code in range(128) if not chr(code).isalpha())
_RUN = re.compile(r"(\S)\1{11}")  # twelve of one letter or sign
_EVERY, _RUN_OF_EVERY = 4, re.compile(r"(\S)\1\1")  # of twelve in a row, every fourth are three in a row
_FEWEST_GRAMS = 8  # below which a phrase said twice is no loop
_GRAM = 4
_LANGUAGE_LETTERS = 20  # fewer are told apart badly
_LANGUAGE_CHARACTERS = (60, 180)  # of a long text its middle is enough, and where that is sure, few of it
_LANGUAGE_SURE = 0.9
_LANGUAGE_DOUBT = 0.1  # probability of all accepted languages together, below which a text is in none of them


def reason_against(text: str, checks: CheckSettings) -> str | None:
    """Return why a caption, cleaned, may not be trained on; None if it may.

    Args:
        text: after `cleaning.clean`.
        checks: the limits.
    """
    letters = _letters(text)
    seen = len(text) - text.count(" ")
    if not seen:
        return "empty"
    if letters < checks.min_letter_fraction * seen:
        return "not_text"
    if letters < checks.min_letters:
        return "too_short"
    if letters > checks.max_letters:
        return "too_long"
    if repeated(text) > checks.max_repeated:
        return "repetition"
    if letters >= _LANGUAGE_LETTERS and not is_in(text, checks.languages, checks.other_languages):
        return "language"
    return None


def is_refusal(text: str) -> bool:
    """Say whether a model declines where its answer begins, whatever follows."""
    return _REFUSAL.match(text) is not None


def repeated(text: str) -> float:
    """Return the share of a text's phrases of four words that were said before in it, 0 to 1.

    1 where a letter or sign stands twelve times in a row. Of a text without spaces, phrases are four letters.
    """
    if _RUN_OF_EVERY.search(text[::_EVERY]) and _RUN.search(text):
        return 1.0
    words: Sequence[str] = text.lower().split()
    if len(words) < len(text) / 20:  # Chinese, Japanese, Thai
        words = text.replace(" ", "")
    total = len(words) - _GRAM + 1
    if total < _FEWEST_GRAMS:
        return 0.0
    return 1 - len(set(zip(*(words[first:] for first in range(_GRAM)), strict=False))) / total


def is_in(text: str, accepted: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Say whether a text may be in one of the accepted languages, told apart from the others only."""
    identifier, likely = _identifier(accepted, others), 0.0
    for length in _LANGUAGE_CHARACTERS:
        first = max(0, len(text) - length) // 2
        middle = text[first : first + length].lower()  # in capitals, names decide
        language, probability = identifier.classify(middle)
        if probability >= _LANGUAGE_SURE and language in accepted:
            return True
        found = dict(identifier.rank(middle))
        likely = sum(found[language] for language in accepted)
        if likely >= _LANGUAGE_SURE:
            break
    return likely >= _LANGUAGE_DOUBT


def _letters(text: str) -> int:
    """Return how many letters a text has, of whatever script."""
    if text.isascii():
        return len(text.encode().translate(None, _NO_LETTERS))
    return sum(map(str.isalpha, text))


@lru_cache(maxsize=2)
def _identifier(accepted: tuple[str, ...], others: tuple[str, ...]) -> LanguageIdentifier:
    """Return what tells these languages apart.

    Raises:
        ValueError: it knows none of that code.
    """
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    wanted = {*accepted, *others}
    if unknown := sorted(wanted - set(identifier.labels)):
        raise ValueError(
            f"captions.checks.languages names {', '.join(unknown)}, which py3langid does not know: use "
            "codes of ISO 639-1"
        )
    identifier.set_languages(sorted(wanted))
    return identifier
