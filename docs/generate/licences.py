"""Write the licences of everything that a default installation brings into docs/third_party.md.

    python docs/generate/licences.py

What counts is what the metadata of the installed packages says, in this order: License-Expression, a License of one
line, the classifiers. The lines between the two marks are replaced; the rest of the page is written by hand.
"""

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parents[1] / "third_party.md"
BEGIN, END = "<!-- licences: begin -->", "<!-- licences: end -->"
PROJECT = "stiv-platform"
# One name for what packages spell in several ways. What is none of these stands as the package has it.
SPELLINGS = {
    "MIT": r"(the )?mit( licen[cs]e)?( \(mit\))?",
    "Apache-2.0": r"apache[- ](licen[cs]e,? )?(version )?2\.0( licen[cs]e)?|apache software licen[cs]e( 2\.0)?",
    "BSD-3-Clause": r"bsd[- ]3[- ]clause( license)?|3-clause bsd license|new bsd",
    "BSD, clauses not stated": r"bsd( license)?",
    "MPL-2.0": r"mozilla public license 2\.0 \(mpl 2\.0\)",
    "ISC": r"isc license( \(iscl\))?",
    "PSF-2.0": r"python software foundation license",
}


def installed(name: str) -> dict[str, metadata.Distribution]:
    """Return what is installed because `name` asks for it, directly or not, by canonical name; itself left out."""
    found: dict[str, metadata.Distribution] = {}
    seen, todo = set(), [(canonicalize_name(name), frozenset[str]())]
    while todo:
        wanted = todo.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        package, extras = wanted
        found[package] = metadata.distribution(package)
        for line in found[package].requires or []:
            needed = Requirement(line)
            if not needed.marker or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                todo.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    del found[canonicalize_name(name)]
    return found


def licence(package: metadata.Distribution) -> str:
    """Return the licence that a package states, or "not stated"."""
    stated = package.metadata
    lines = (stated.get("License") or "").strip().splitlines()
    classifiers = [
        line.split("::")[-1].strip()
        for line in stated.get_all("Classifier") or []
        if line.startswith("License ::") and not line.endswith("OSI Approved")
    ]
    if expression := stated.get("License-Expression"):
        return _spelt(expression)
    if len(lines) == 1 and not re.match(r"copyright|https?:", lines[0], re.IGNORECASE) and lines[0] != "Dual License":
        return _spelt(lines[0])
    return " or ".join(dict.fromkeys(_spelt(line) for line in classifiers)) or "not stated"


def _spelt(licence: str) -> str:
    for name, spellings in SPELLINGS.items():
        if re.fullmatch(spellings, licence, re.IGNORECASE):
            return name
    return licence.replace("|", "or")


def table() -> str:
    """Return one row per licence, the most frequent first, with the packages that state it."""
    packages: dict[str, list[str]] = {}
    for name, package in installed(PROJECT).items():
        packages.setdefault(licence(package), []).append(name)
    rows = sorted(packages.items(), key=lambda row: (-len(row[1]), row[0]))
    lines = [f"| {stated} | {len(names)} | {', '.join(sorted(names))} |" for stated, names in rows]
    return "\n".join(["| licence as stated | | packages |", "|---|---|---|", *lines])


def main() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


if __name__ == "__main__":
    main()
