"""A video-language model's folder, as the hub holds it: where it is and which one it is, without torch."""

import functools
from pathlib import Path

from stiv_model.encoders import pinned

FILES = (
    *pinned.TRANSFORMERS_FILES,
    *pinned.TOKENIZER_FILES,
    *("generation_config.json", "processor_config.json", "preprocessor_config.json"),
    *("video_preprocessor_config.json", "chat_template.jinja", "chat_template.json"),
)
"""What a video-language model, its processor and its template of chats are made of, as patterns."""


def find(section: str, source: str, revision: str | None) -> Path:
    """Return the folder of a model.

    Raises:
        FileNotFoundError, ValueError: as `pinned.find` and `pinned.check_folder`, or its config names code of its own.
    """
    folder = pinned.find(section, source, revision, FILES)
    with pinned.naming(section, source):
        config = pinned.check_folder(folder, pinned.TRANSFORMERS_WEIGHTS)
        if "auto_map" in config:
            raise ValueError(
                f"{folder / pinned.CONFIG} names code of its own (auto_map), which is never run: take the key out if "
                "transformers knows this architecture, or name another model"
            )
    return folder


def identity(folder: Path, source: str, revision: str | None) -> str:
    """Return what names a model for good: the hub's name and commit, or the folder's name and the hash of its files.

    Raises:
        OSError: a file cannot be read.
    """
    if pinned.HUB_NAME.fullmatch(source) and revision is not None and not Path(source).is_dir():
        return f"{source}@{revision}"
    paths = sorted({path for pattern in FILES for path in folder.glob(pattern)})
    return f"{folder.name}@{_hash(tuple((path, _stamp(path)) for path in paths))}"


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@functools.cache
def _hash(stamped: tuple[tuple[Path, tuple[int, int]], ...]) -> str:
    """Return the hash of some files; gigabytes of weights are read once in a process, unless they change."""
    return pinned.hash_files(path for path, _ in stamped)
