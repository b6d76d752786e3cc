"""What a listing is, by lists and dicts that are held whole: that which `sources.write_listing` must agree with."""

import os
import unicodedata
from pathlib import Path, PurePosixPath

from tasks.videos.sources import Item


def listing(root: Path) -> list[Item]:
    """Return every file of a folder that is neither hidden nor a sidecar, sorted by uri."""
    return sorted(paired(_walked(root)), key=lambda item: item.uri)


def _walked(root: Path) -> list[Item]:
    found: list[Item] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked = [name for name in folders if Path(folder, name).is_symlink()]
        for name in [*files, *linked]:
            path = Path(folder, name)
            if name.startswith(".") or (name in linked and _problem(path, root) != "outside_source"):
                continue
            found.append(_named_item(path.relative_to(root).as_posix(), root))
    return found


def _named_item(uri: str, root: Path) -> Item:
    """Return the item of a file in a folder; a name that is not UTF-8 is written out in bytes, and not used."""
    try:
        uri.encode()
    except UnicodeEncodeError:
        return Item(os.fsencode(uri).decode(errors="backslashreplace"), 0, "", None, "name_not_text")
    return _file_item(uri, root)


def _file_item(uri: str, root: Path) -> Item:
    path = root / uri
    problem = _problem(path, root)
    if problem in ("not_found", "not_permitted"):
        return Item(uri, 0, "", None, problem)
    status = path.lstat() if problem else path.stat()
    return Item(uri, status.st_size, str(status.st_mtime_ns), None, problem)


def _problem(path: Path, root: Path) -> str | None:
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(root):
        return "outside_source"
    if not target.exists():
        return "not_found"
    return None if target.is_file() else "not_a_file"


def paired(found: list[Item]) -> list[Item]:
    """Note the sidecars at the files that they stand beside; one that stands alone is an item with a problem.

    Accents may be composed in one name and not in the other (as a Mac writes them), unless that makes two names one.
    """
    texts = {_stem(item.uri): item for item in found if item.uri.lower().endswith(".txt")}
    composed: dict[str, list[Item]] = {}
    for stem, one in texts.items():
        composed.setdefault(unicodedata.normalize("NFC", stem), []).append(one)
    items, used = [], set[str]()
    for item in found:
        if item.uri.lower().endswith(".txt"):
            continue
        stem = _stem(item.uri)
        alike = composed.get(unicodedata.normalize("NFC", stem), [])
        text = texts.get(stem) or (alike[0] if len(alike) == 1 else None)
        items.append(_with_text(item, text))
        used.update([text.uri] if text else [])
    alone = [one for one in texts.values() if one.uri not in used]
    return items + [one._replace(problem=one.problem or "text_without_video") for one in alone]


def _with_text(item: Item, text: Item | None) -> Item:
    return item._replace(sidecar=text.uri, version=f"{item.version} {text.version}") if text else item


def _stem(uri: str) -> str:
    return uri.removesuffix(PurePosixPath(uri).suffix)
