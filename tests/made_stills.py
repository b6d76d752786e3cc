"""Folders of stills for tests of what reads them."""

from pathlib import Path

from tasks.storage import atomic, parts, stills


def write_stills(shots: Path, pictures: dict[str, list[bytes]], count: int = 2) -> None:
    """Write the stills of some shots, by id, as stage shots does.

    Args:
        count: of parts.
    """
    folder = shots / stills.FOLDER
    folder.mkdir(parents=True)
    of_parts: dict[int, list[dict]] = {}
    for clip, own in pictures.items():
        of_parts.setdefault(parts.number(clip, count), []).append({"clip": clip, "stills": own})
    files = [stills.write_part(folder, part, rows) for part, rows in of_parts.items()]
    parts.write(folder, count, {file.name: atomic.sha256_file(file) for file in files})
