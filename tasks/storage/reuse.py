"""What earlier runs of a stage have made, so that added videos are processed alone.

A stage that is done links its tables into `.cache/earlier/STAGE/KEY`; KEY is a hash of everything but the data that
decides about a row: settings and code. The next run with the same key reuses the rows of the items that it has again,
and works on the others. Only the newest key of a stage stays, and nothing depends on its being there.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tasks.storage import atomic
from tasks.storage.records import KnownHashes

log = logging.getLogger(__name__)

HASHES = "hashes.json"
"""The SHA-256 of every file of a folder of reusable tables."""
EARLIER = Path(".cache/earlier")
_BELIEVED_DAYS = 30
"""A reusable file that has not changed is hashed again after so long. Months would do: only the disk can spoil it."""


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
    known = KnownHashes(cache / f"{stage}.checked.json", "sha256", _BELIEVED_DAYS)
    if reusable.exists() and (said := _damage(reusable, known)):
        log.warning("%s: %s; nothing is reused from an earlier run", reusable, said)
        shutil.rmtree(reusable)
    known.save()
    return reusable


def fingerprint(reusable: Path) -> int | None:
    """Return what tells one version of a folder of reusable tables from the next, None if there is none.

    It belongs to the identity of a run that reuses rows from there: its shards were cut from the other items.
    """
    return reusable.stat().st_mtime_ns if reusable.exists() else None


def save_reusable(files: Iterable[Path], reusable: Path, known: Mapping[str, str] = MappingProxyType({})) -> None:
    """Link a finished stage's files into the folder `reusable`, whole or not at all, and delete those of other keys.

    A file whose hash is known, or that is one of those saved before, reused as it was, keeps that hash: were it taken
    of what is there now, bytes that went bad in the meantime would be noted as right.

    Args:
        files: of a folder, all files in it are linked, in a folder of its name.
        known: sha256 of some of them as they were written, by their path in `reusable`.
    """
    before = _saved_hashes(reusable.parent)
    tmp_path = reusable.with_name(f"{reusable.name}.tmp")
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir(parents=True)
    for file in files:
        for inside in sorted(file.iterdir()) if file.is_dir() else [file]:
            target = tmp_path / inside.relative_to(file.parent)
            target.parent.mkdir(exist_ok=True)
            atomic.link(inside, target)
    linked = {file.relative_to(tmp_path).as_posix(): file for file in sorted(tmp_path.rglob("*")) if file.is_file()}
    hashes = {
        name: known.get(name) or before.get(file.stat().st_ino) or atomic.sha256_file(file)
        for name, file in linked.items()
    }
    (tmp_path / HASHES).write_text(json.dumps(hashes, indent=1))
    atomic.sync_tree(tmp_path)
    for old in reusable.parent.iterdir():
        if old != tmp_path:
            shutil.rmtree(old)
    tmp_path.rename(reusable)


def _saved_hashes(folder: Path) -> dict[int, str]:
    """Return the hash of every file that a stage has saved, by its inode."""
    found = {}
    for noted in folder.glob(f"*/{HASHES}"):
        with suppress(OSError, ValueError, AttributeError):
            hashes = json.loads(noted.read_text())
            found.update({noted.with_name(name).stat().st_ino: sha256 for name, sha256 in hashes.items()})
    return found


def _damage(reusable: Path, known: KnownHashes) -> str | None:
    """Say what is wrong with a folder of reusable tables; None when every byte is as it was saved."""
    try:
        hashes = json.loads((reusable / HASHES).read_text())
        wrong = [name for name, sha256 in hashes.items() if not known.is_as(reusable / name, sha256)]
    except (OSError, ValueError, AttributeError) as error:
        return f"it cannot be read ({error})"
    return f"{wrong[0]} is not what was saved" if wrong else None
