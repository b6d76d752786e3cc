"""What earlier runs of a stage have made, so that added videos are processed alone.

A stage that is done links its tables into `.cache/earlier/STAGE/KEY`; KEY is a hash of everything but the data that
decides about a row: settings and code. The next run with the same key reuses the rows of the items that it has again,
and works on the others. Only the newest key of a stage stays, and nothing depends on its being there.
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
    """Return the folder for a stage's tables that were made with these settings and this code.

    Args:
        cache: folder of the tables of all stages, EARLIER.
        stage: its name in dvc.yaml.
        made_with: everything but the data that decides about a row, as JSON has it.
    """
    key = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()
    return cache / stage / key[:20]


def fingerprint(earlier: Path) -> int | None:
    """Return what tells one version of a folder of reusable tables from the next, None if there is none.

    It belongs to the identity of a run that reuses rows from there: its shards were cut from the other items.
    """
    return earlier.stat().st_mtime_ns if earlier.exists() else None


def save_reusable(files: Iterable[Path], earlier: Path) -> None:
    """Link a finished stage's files into the folder `earlier`, whole or not at all, and delete those of other keys."""
    tmp_path = earlier.with_name(f"{earlier.name}.tmp")
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir(parents=True)
    for file in files:
        atomic.link(file, tmp_path / file.name)
    for old in earlier.parent.iterdir():
        if old != tmp_path:
            shutil.rmtree(old)
    tmp_path.rename(earlier)
