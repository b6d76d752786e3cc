"""Every refusal, read from the code: the words of each error that is made there, and where.

python -m docs.generate.refusals      # prints the page as the site has it
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("flows", "tasks", "stiv_model")
_OF_OURS = ("AssertionError", "NotImplementedError", "KeyError")
"""What only we can have got wrong is no refusal."""
_FEW_LETTERS = 12
"""A text of so few of its own only puts others together."""


class Refusal(NamedTuple):
    """The words of an error, of those that the code makes."""

    room: str
    """Folder, from the top of the repository."""
    module: str
    words: str
    """… stands for what differs."""


@cache
def refusals(root: Path = ROOT) -> list[Refusal]:
    """Return all refusals of our packages, in the order of their files."""
    found: dict[Refusal, None] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            place = path.relative_to(root)
            for words in _made_in(ast.parse(path.read_text(encoding="utf-8"))):
                found[Refusal(place.parent.as_posix(), place.name, words)] = None
    return list(found)


def _made_in(tree: ast.Module) -> Iterator[str]:
    texts = {
        target.id: str(node.value.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = ast.unparse(node.func)
        is_error = name.endswith("Error") and not name.endswith(_OF_OURS)
        words = _words(node.args[-1], texts) if is_error or name == "sys.exit" else ""
        if sum(letter.isalpha() for letter in words) > _FEW_LETTERS:
            yield " ".join(words.split())


def _words(node: ast.expr, texts: dict[str, str]) -> str:
    """Return the words of a text, with the module's own texts in it, and … for what else is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_words(part, texts) or "…" for part in node.values)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        return texts.get(node.value.id, "")
    return ""


def page() -> str:
    """Return the page of the site: a table for every folder of code."""
    found = refusals()
    lines = [
        "# Refusals",
        "",
        "The words of every error that the code makes, where `…` stands for what differs: a value, a place. What to do "
        "stands in the line itself, as a rule behind its last colon. Those that come often, and what each folder "
        "refuses: [Troubleshooting](../troubleshooting.md).",
    ]
    for room in dict.fromkeys(one.room for one in found):
        lines += ["", f"## {room}", "", "| the line | made in |", "|---|---|"]
        lines += [f"| {_code(one.words)} | `{one.module}` |" for one in found if one.room == room]
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    shown = text.replace("|", "\\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


if __name__ == "__main__":
    print(page(), end="")
