"""What is taken out of a caption before anything is trained on it: named rules, in a fixed order.

Each rule is a function from text to text that changes nothing where it finds nothing, and none of them adds a word.
`clean` says which of them changed something; the text as it came is kept beside (column raw).
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple, get_args

import ftfy

from tasks.captions.settings import Rule

RULES: tuple[str, ...] = ("controls", *get_args(Rule), "spaces")
"""All rules in the order in which they are applied; the first and the last always are."""

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?", re.DOTALL)
"""An escape sequence of a terminal: CSI, OSC, or one letter."""
_INVISIBLE = {"Cc", "Cf", "Cs", "Co"}
"""Unicode categories of what nobody sees: controls, marks of direction, halves of surrogates, private use."""
_JOINERS = "\u200c\u200d"  # within words of Persian and Indian scripts, and within emoji
_SPACES = "\t\n\r\v\f\x85\u2028\u2029"

_THOUGHT = re.compile(r"<(think|thinking|reasoning)>", re.IGNORECASE)
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL | re.IGNORECASE)
_MARKDOWN: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("```", re.compile(r"^\s*```[\w-]*[ \t]*$", re.MULTILINE), ""),  # fences
    ("#", re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+", re.MULTILINE), ""),  # headings
    (">", re.compile(r"^[ \t]*>[ \t]?", re.MULTILINE), ""),  # citations
    ("](", re.compile(r"!?\[([^\[\]\n]{1,300})\]\([^()\s]{1,500}\)"), r"\1"),  # links and images
    ("**", re.compile(r"\*\*(?=\S)([^*\n]{1,500}?)(?<=\S)\*\*"), r"\1"),  # bold
    ("__", re.compile(r"__(?=\S)([^_\n]{1,500}?)(?<=\S)__"), r"\1"),
    ("*", re.compile(r"(?<![\w*])\*(?=\S)([^*\n]{1,500}?)(?<=\S)\*(?![\w*])"), r"\1"),  # italic
    ("`", re.compile(r"`([^`\n]{1,300})`"), r"\1"),  # code
)
"""What a text has where there may be something to change, what is changed, and into what."""
_ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,2}[.)])[ \t]+(?=\S)", re.MULTILINE)
_SUBJECT = "(?:video|clip|image|picture|photo|photograph|footage|scene|frame|sequence|shot)s?"
_VERB = "(?:shows|depicts|features|displays|captures|portrays|presents|illustrates)"
_CAPTION = "(?:caption|description|summary)"
_OPENINGS = (
    r"(?:sure|certainly|of course|okay|ok)\s*[,!.:]+\s+",
    rf"(?:here(?:['’]s| is)\s)[^.:\n]{{0,80}}\b{_CAPTION}\b[^.:\n]{{0,80}}:\s*",
    rf"(?:the\s+)?(?:(?:dense|detailed|short|brief|video|image)\s+)?{_CAPTION}\s*:\s*",
    rf"(?:in|throughout)\s+(?:the|this|these)\s+(?:\w+\s+)?{_SUBJECT}\s*,\s*"
    r"(?:(?:we\s+(?:can\s+)?see|there\s+(?:is|are))\s+)?",
    rf"(?:the|this|these)\s+(?:\w+\s+)?{_SUBJECT}\s+(?:(?:clearly|mainly|primarily)\s+)?{_VERB}\s+(?:that\s+)?(?=\S)",
)
_PREFIX = re.compile(rf"\s*(?:{'|'.join(_OPENINGS)})", re.IGNORECASE)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“", "「": "」", "『": "』"}
_UNSEEN = "(?:texts?|watermarks?|logos?|captions?|subtitles?|audio|sound|dialogue)"
_ADMISSIONS = (
    r"\bas an? (?:ai|artificial intelligence|language model)\b",
    r"\bimaginary content\b",
    rf"\bbased (?:only |solely )?on the (?:provided|given|available) (?:{_SUBJECT}|information)\b",
    r"\b(?:it is|it['’]s) (?:not possible|impossible|difficult|hard|unclear) "
    r"(?:to (?:tell|say|determine|know)|whether|if|what)\b",
    r"\bi (?:cannot|can['’]t|could not|am unable to|am not able to)\b",
    rf"\b{_SUBJECT} (?:does|do) not (?:contain|provide|show|include|have) (?:any )?"
    rf"(?:{_UNSEEN}|information|context|details?)\b",
    rf"\bthere (?:is|are) no (?:(?:visible|discernible|apparent|other) )?{_UNSEEN}\b",
    r"\bno (?:further|additional|other) (?:information|details?|context)\b",
)
_LIMITS = re.compile("|".join(_ADMISSIONS), re.IGNORECASE)
_NEGATIONS = (
    "not ",
    "no ",
    "imaginary",
    "as an a",
    "based o",
    "'t ",
    "’t ",
    "unable",
    "impossible",
    "difficult",
    "hard",
    "unclear",
)
"""One of them stands wherever `_LIMITS` finds something; to look for words is ten times quicker."""
_SENTENCE = re.compile(r"(?<=[.!?。！？])[\"'”’»)\]]*\s+(?=\S)|(?<=[。！？])(?=\S)")
_ABBREVIATION = re.compile(r"(?:\b(?:mr|mrs|ms|dr|st|vs|etc|no|approx|e\.g|i\.e)|\b[A-Z])\.$", re.IGNORECASE)


class Cleaned(NamedTuple):
    """A caption without what the rules take out."""

    text: str
    rules: tuple[str, ...]
    """Those that changed something, in order."""


def clean(text: str, rules: Iterable[str]) -> Cleaned:
    """Apply the rules to a caption.

    Args:
        text: as it came, any string.
        rules: which of `Rule`; `controls` and `spaces` are applied in any case.
    """
    wanted, applied = {*rules, "controls", "spaces"}, []
    for name, rule in _FUNCTIONS.items():
        if name in wanted and (changed := rule(text)) != text:
            text = changed
            applied.append(name)
    return Cleaned(text, tuple(applied))


def unwrapped(text: str) -> Cleaned:
    """Return an answer in JSON without the thought before it and the fence of Markdown around it."""
    bare, rules = _thinking(text).strip(), []
    if bare != text.strip():
        rules.append("thinking")
    if (fenced := _FENCED.fullmatch(bare)) is not None:
        bare = fenced[1].strip()
        rules.append("markdown")
    return Cleaned(bare, tuple(rules))


def is_unfinished_thought(text: str) -> bool:
    """Say whether a model still thinks where its answer ends."""
    return _THOUGHT.search(_thinking(text)) is not None


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; those after an abbreviation or an initial belong to what stood before."""
    found: list[str] = []
    for part in _SENTENCE.split(text):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] = f"{found[-1]} {part}"
        elif part:
            found.append(part)
    return found


def _controls(text: str) -> str:
    """Take out what no reader sees and a terminal, a log or a page might obey; ends of lines stay."""
    if text.isascii() and text.isprintable():
        return text
    text = _ESCAPE.sub("", text)
    if text.isprintable():
        return text
    return "".join(
        letter
        for letter in text
        if letter in _SPACES or letter in _JOINERS or unicodedata.category(letter) not in _INVISIBLE
    )


def _mojibake(text: str) -> str:
    return text if text.isascii() else ftfy.fix_encoding(text)


def _thinking(text: str) -> str:
    """Take out what a model thought before it answered; a thought that has no end stays (`is_unfinished_thought`)."""
    while (begin := _THOUGHT.search(text)) is not None:
        end = text.lower().find(f"</{begin[1].lower()}>", begin.end())
        if end < 0:
            return text
        text = text[: begin.start()] + text[end + len(begin[1]) + 3 :]
    return text


def _markdown(text: str) -> str:
    for sign, pattern, instead in _MARKDOWN:
        if sign in text:
            text = pattern.sub(instead, text)
    return _ITEM.sub("", text) if "\n" in text or not text[:1].isalpha() else text


def _prefix(text: str) -> str:
    """Take off "Sure! Here is a caption: The video shows", and begin with a capital letter if the prefix did."""
    rest = text
    while (found := _PREFIX.match(rest)) and found.end() < len(rest):
        rest = rest[found.end() :]
    began = text.lstrip()[:1]
    return rest[:1].upper() + rest[1:] if rest != text and began.isupper() else rest


def _quotes(text: str) -> str:
    """Take off quotation marks around the whole."""
    inner = text.strip()
    while len(inner) > 2 and _QUOTES.get(inner[0]) == inner[-1] and inner[0] not in inner[1:-1]:
        inner = inner[1:-1].strip()
    return inner if inner != text.strip() else text


def _limits(text: str) -> str:
    """Take out sentences about what the caption, or its writer, cannot do or does not see."""
    lower = text.lower()
    if not any(word in lower for word in _NEGATIONS) or not _LIMITS.search(text):
        return text
    return " ".join(sentence for sentence in sentences(text) if not _LIMITS.search(sentence))


def _spaces(text: str) -> str:
    """Make every run of spaces and ends of lines one space."""
    return " ".join(text.split())


_FUNCTIONS: dict[str, Callable[[str], str]] = {
    "controls": _controls,
    "mojibake": _mojibake,
    "thinking": _thinking,
    "markdown": _markdown,
    "prefix": _prefix,
    "quotes": _quotes,
    "limits": _limits,
    "spaces": _spaces,
}
