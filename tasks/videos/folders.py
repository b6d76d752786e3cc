"""The files of a folder, as a source has them: each by its path, with what stands against opening it."""

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class Entry(NamedTuple):
    """What a folder, or a store, says of one file."""

    uri: str
    """Path below the folder, or s3://bucket/key."""
    size_bytes: int
    version: str
    """Changes when the content does: time of change, or the store's entity tag."""
    problem: str | None
    """Reason code if it must not be opened."""


def scan(root: Path) -> Iterator[Entry]:
    """Give every file below a folder that is not hidden, in no order; folders that cannot be listed are passed over.

    A linked folder is not entered: one inside `root` is listed where it is, one outside gets an entry.

    Args:
        root: resolved.
    """
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            entries = os.scandir(root / below)
        except OSError:
            continue
        with entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                uri = f"{below}{entry.name}"
                if not entry.is_symlink():
                    if entry.is_dir():
                        waiting.append(f"{uri}/")
                    else:
                        yield _named(uri) or _entry(uri, entry)
                elif not _is_folder(entry) or _problem(root / uri, root) == "outside_source":
                    yield _named(uri) or look(uri, root)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _named(uri: str) -> Entry | None:
    """Return the entry of a name that is not UTF-8: written out in bytes, and not used."""
    try:
        uri.encode()
    except UnicodeEncodeError:
        return Entry(os.fsencode(uri).decode(errors="backslashreplace"), 0, "", "name_not_text")
    return None


def _entry(uri: str, entry: "os.DirEntry[str]") -> Entry:
    """Return the entry of what is no link, in a folder that was entered, and so lies inside."""
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Entry(uri, 0, "", _of_error(error))
    problem = None if stat.S_ISREG(status.st_mode) else "not_a_file"
    return Entry(uri, status.st_size, str(status.st_mtime_ns), problem)


def look(uri: str, root: Path) -> Entry:
    """Return the entry of one path below a folder.

    Args:
        root: resolved.
    """
    path = root / uri
    problem = _problem(path, root)
    if problem in ("not_found", "not_permitted"):
        return Entry(uri, 0, "", problem)
    status = path.lstat() if problem else path.stat()
    return Entry(uri, status.st_size, str(status.st_mtime_ns), problem)


def spelling(uri: str, root: Path) -> str:
    """Return the name that a listed file has on the disk: with its accents composed or not, as machines differ."""
    forms = (uri, *(unicodedata.normalize(form, uri) for form in ("NFC", "NFD")))
    return next((form for form in forms if os.path.lexists(root / form)), uri)


def _problem(path: Path, root: Path) -> str | None:
    target = Path(os.path.realpath(path))  # Path.resolve raises on a link to itself
    if not is_inside(target, root):
        return "outside_source"
    try:
        mode = target.stat().st_mode
    except OSError as error:
        return _of_error(error)
    return None if stat.S_ISREG(mode) else "not_a_file"


def _of_error(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "not_permitted"
    if error.errno in _NO_SUCH_FILE:
        return "not_found"
    raise error


def is_inside(target: Path, root: Path) -> bool:
    """Say whether a file lies in a source, or in DVC's cache, where DVC's own links lead (its cache.type symlink)."""
    if target.is_relative_to(root):
        return True
    cache = _dvc_cache(root)
    return cache is not None and target.is_relative_to(cache) and target.is_file()


@lru_cache(maxsize=8)
def _dvc_cache(root: Path) -> Path | None:
    """Return the cache of the DVC workspace that a folder is in, None if it is in none."""
    workspace = next((folder for folder in (root, *root.parents) if (folder / ".dvc").is_dir()), None)
    if workspace is None:
        return None
    config = ConfigParser(interpolation=None)
    with suppress(ConfigError):
        config.read([workspace / ".dvc" / name for name in ("config", "config.local")])
    return Path(os.path.realpath(workspace / ".dvc" / config.get("cache", "dir", fallback="cache")))
