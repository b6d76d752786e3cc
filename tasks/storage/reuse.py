"""What earlier runs of a stage have made, so that added videos are processed alone.

A stage that is done links its tables into `.cache/earlier/STAGE/KEY`; KEY is a hash of everything but the data that
decides about a row: settings and code. The next run with the same key takes over the rows of what it is given again,
and works on the rest. Only the newest key of a stage is kept, and nothing depends on its being there.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.storage import atomic

EARLIER = Path(".cache/earlier")


def folder(cache: Path, stage: str, made_with: dict[str, Any]) -> Path:
    """Return where a stage's tables are kept that were made with these settings and this code."""
    key = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()
    return cache / stage / key[:20]


def fingerprint(kept: Path) -> int | None:
    """Return what tells one version of a kept folder from the next, None if there is none.

    It belongs to the identity of a run that takes rows from there: its shards were cut from the rest.
    """
    return kept.stat().st_mtime_ns if kept.exists() else None


def save_reusable(files: Iterable[Path], kept: Path) -> None:
    """Link files of a finished stage into its folder, whole or not at all, instead of all that was kept before."""
    tmp_path = kept.with_name(f"{kept.name}.tmp")
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir(parents=True)
    for file in files:
        atomic.link(file, tmp_path / file.name)
    for old in kept.parent.iterdir():
        if old != tmp_path:
            shutil.rmtree(old)
    tmp_path.rename(kept)
