"""What earlier runs of a stage have made, so that added videos are processed alone.

A stage that is done links its tables into `.cache/earlier/STAGE/KEY`; KEY is a hash of everything but the data that
decides about a row: settings and code. The next run with the same key reuses the rows of the items that it has again,
and works on the others. Only the newest key of a stage stays, and nothing depends on its being there.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.storage import atomic

log = logging.getLogger(__name__)

HASHES = "hashes.json"
"""The SHA-256 of every file of a folder of reusable tables."""
EARLIER = Path(".cache/earlier")


def folder(cache: Path, stage: str, made_with: dict[str, Any]) -> Path:
    """Return the folder for a stage's tables that were made with these settings and this code.

    Where a file there is no longer what was saved, all of it goes: it costs the reuse, never the stage.

    Args:
        cache: folder of the tables of all stages, EARLIER.
        stage: its name in dvc.yaml.
        made_with: everything but the data that decides about a row, as JSON has it.
    """
    key = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()
    reusable = cache / stage / key[:20]
    if reusable.exists() and (said := _damage(reusable)):
        log.warning("%s: %s; nothing is reused from an earlier run", reusable, said)
        shutil.rmtree(reusable)
    return reusable


def fingerprint(reusable: Path) -> int | None:
    """Return what tells one version of a folder of reusable tables from the next, None if there is none.

    It belongs to the identity of a run that reuses rows from there: its shards were cut from the other items.
    """
    return reusable.stat().st_mtime_ns if reusable.exists() else None


def save_reusable(files: Iterable[Path], reusable: Path) -> None:
    """Link a finished stage's files into the folder `reusable`, whole or not at all, and delete those of other keys."""
    tmp_path = reusable.with_name(f"{reusable.name}.tmp")
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir(parents=True)
    for file in files:
        atomic.link(file, tmp_path / file.name)
    hashes = {file.name: atomic.sha256_file(file) for file in sorted(tmp_path.iterdir())}
    (tmp_path / HASHES).write_text(json.dumps(hashes, indent=1))
    atomic.sync_tree(tmp_path)
    for old in reusable.parent.iterdir():
        if old != tmp_path:
            shutil.rmtree(old)
    tmp_path.rename(reusable)


def _damage(reusable: Path) -> str | None:
    """Say what is wrong with a folder of reusable tables; None when every byte is as it was saved."""
    try:
        hashes = json.loads((reusable / HASHES).read_text())
        wrong = [name for name, sha256 in hashes.items() if atomic.sha256_file(reusable / name) != sha256]
    except (OSError, ValueError, AttributeError) as error:
        return f"it cannot be read ({error})"
    return f"{wrong[0]} is not what was saved" if wrong else None
