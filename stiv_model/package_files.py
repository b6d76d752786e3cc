"""Files and folders that an installed Python package carries, found without importing it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

PREFIX = "package:"


def places(package: str, path: str) -> list[Path]:
    """Return where `path` would be in an installed package: in each of its folders; none if it is not installed."""
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    return [Path(folder, path) for folder in (found and found.submodule_search_locations) or []]


def find(key: str, source: str, is_wanted: Callable[[Path], bool], remedy: str) -> Path:
    """Return what a setting names as `package:NAME/PATH`.

    Args:
        key: of the setting, dotted, for the message.
        source: its value.
        is_wanted: `Path.is_file` or `Path.is_dir`.
        remedy: what to do where it is not there.

    Raises:
        FileNotFoundError: there is no such package, or nothing wanted in it.
    """
    package, _, path = source.removeprefix(PREFIX).partition("/")
    possible = places(package, path)
    for place in possible:
        if is_wanted(place):
            return place
    lack = f"the package {package} carries no {path}" if possible else f"there is no package {package!r} here"
    raise FileNotFoundError(f"{key} asks for {source}, but {lack}: {remedy}")
