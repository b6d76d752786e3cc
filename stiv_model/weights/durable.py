"""What a power loss leaves: files and names that were synced to the disk, and of everything else anything."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Put a file's bytes, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Put a folder on the disk with all that is in it, so that it can be given its name."""
    for inside in [*folder.rglob("*"), folder]:
        sync(inside)
