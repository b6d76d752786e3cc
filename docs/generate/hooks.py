"""Hooks of mkdocs: pages from the top of the repository and from the code, links between them, equations.

Everything is made offline. A link that leads to nothing is a warning, which ends a strict build.
"""

import html
import json
import logging
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
log = logging.getLogger("mkdocs.plugins.stiv")

# Pages that lie elsewhere in the repository, with their place on the site.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changes.md",
    "benchmarks/README.md": "measured.md",
    "infra/README.md": "infra.md",
    "infra/vllm.md": "vllm.md",
}
_IN_REPOSITORY = {page: source for source, page in ELSEWHERE.items()}
_CODE = re.compile(r"(^```.*?^```[ ]*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_MATH = re.compile(r"^```math\n(.*?)^```[ ]*$|(?<![\w$\\])\$([^$\n]+)\$(?![\w$])", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<before>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<target>[^)\s]+)\)|src=\"(?P<src>[^\"]+)\"")
_MARK = "\u2063equation{}\u2063"  # an invisible separator: Markdown leaves it as it is


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere, and those that are read from the code."""
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    # a process of its own: some of what it imports takes over logging, by which mkdocs counts its warnings
    made = [sys.executable, "-m", "docs.generate.reference"]
    pages = json.loads(subprocess.run(made, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    for page, content in pages.items():
        files.append(File.generated(config, f"reference/{page}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put aside the equations, and turn links within the repository into links within the site."""
    equations: list[str] = []

    def aside(found: re.Match[str]) -> str:
        block, inline = found.groups()
        if block is None and inline is None:
            return found[0]
        display = "block" if block is not None else "inline"
        text = (block or inline).strip().replace("{aligned}", "{split}")  # which the converter knows, and draws alike
        equations.append(convert(text, display=display))
        return _MARK.format(len(equations) - 1)

    # equations first where they are blocks of code, then those between other code
    pieces = _CODE.split(markdown)
    for number, piece in enumerate(pieces):
        is_code = number % 2 == 1
        if not is_code or piece.startswith("```math"):
            pieces[number] = _MATH.sub(aside, piece)
    page.meta["equations"] = equations
    place = page.file.src_uri
    return linked("".join(pieces), place, files)


def on_page_content(content: str, page: Page, **_: Any) -> str:
    """Put the equations back, as MathML, which browsers show by themselves."""
    for number, equation in enumerate(page.meta.get("equations", [])):
        content = content.replace(_MARK.format(number), equation)
    return content


def linked(markdown: str, page: str, files: Files) -> str:
    """Return a page's Markdown with links as the site has them; a file that is no page is named without a link.

    Args:
        page: its place on the site.
    """
    source = _IN_REPOSITORY.get(page, f"docs/{page}")

    def to_site(found: re.Match[str]) -> str:
        target = found["target"] or found["src"]
        path, hash_sign, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return found[0]
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        inside = ELSEWHERE.get(wanted, wanted.removeprefix("docs/"))
        if (wanted in ELSEWHERE or wanted.startswith("docs/")) and files.get_file_from_path(inside):
            url = posixpath.relpath(inside, posixpath.dirname(page) or ".") + hash_sign + anchor
            return f'src="{url}"' if found["src"] else f"{found['before']}({url})"
        if not (ROOT / wanted).exists():
            log.warning("%s links to %s, which is not in the repository", source, target)
        return found["before"].removeprefix("[").removesuffix("]") if found["before"] else html.escape(found[0])

    pieces = re.split(r"(^```.*?^```[ ]*$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(piece if piece.startswith("```") else _LINK.sub(to_site, piece) for piece in pieces)
