"""Which text belongs to which file of a source: `x.txt`, or `x.TXT`, to `x.mp4`."""

import unicodedata
from pathlib import PurePosixPath

from tasks.videos.folders import Entry

SIDECAR = ".txt"


def is_text(uri: str) -> bool:
    return uri[-len(SIDECAR) :].lower() == SIDECAR


def stem(uri: str) -> str:
    """Return a name without its ending, as `PurePosixPath` knows it."""
    if "/." in uri:
        return uri.removesuffix(PurePosixPath(uri).suffix)
    name = uri[uri.rfind("/") + 1 :]
    dot = name.rfind(".")
    return uri[: dot - len(name)] if 0 < dot < len(name) - 1 else uri


def composed(uri: str) -> str:
    """Return what names have in common that differ in their endings, and in whether accents are composed.

    A Mac writes them apart from their letters.
    """
    name = stem(uri)
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def paired(alike: list[Entry]) -> list[tuple[Entry, str | None]]:
    """Return each file with the uri of the text that it stands beside; a text that stands alone has a problem.

    Accents may be composed in one name and not in the other, unless that makes two names one. Of two texts of one name,
    the last by uri is the file's.

    Args:
        alike: all files and texts of which `composed` says the same.
    """
    if len(alike) == 1 and not is_text(alike[0].uri):
        return [(alike[0], None)]
    texts = {stem(one.uri): one for one in sorted(alike) if is_text(one.uri)}
    only = next(iter(texts.values())) if len(texts) == 1 else None
    items: list[tuple[Entry, str | None]] = []
    used = set[str]()
    for entry in alike:
        if not is_text(entry.uri):
            text = texts.get(stem(entry.uri)) or only
            version = f"{entry.version} {text.version}" if text else entry.version
            items.append((entry._replace(version=version), text.uri if text else None))
            used.update([text.uri] if text else [])
    alone = [one for one in alike if is_text(one.uri) and one.uri not in used]
    return items + [(one._replace(problem=one.problem or "text_without_video"), None) for one in alone]
