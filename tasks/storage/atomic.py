"""Work that survives a crash: done in `OUT.partial`, moved to OUT when whole.

`OUT.partial/run.json` says whose work it is: settings and hashes of inputs. The same run goes on where it stopped,
another run starts empty. Single files inside are written under a temporary name, fsynced and renamed, so that a file
that is there is whole.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_ASIDE = ".{name}.{process}.tmp"


def open_workdir(out: Path, run: dict[str, Any]) -> Path:
    """Return the folder to work in, as the last attempt left it if that was the same run, else empty.

    Args:
        run: what is to be done, as JSON has it.
    """
    work = out.with_name(f"{out.name}.partial")
    run_file = work / "run.json"
    text = json.dumps(run, indent=2, sort_keys=True)
    if work.exists() and not _is_same(run_file, json.loads(text)):
        log.info("%s held another run: emptied", work)
        shutil.rmtree(work)
    elif work.exists():
        log.info("%s: going on with the work that is there", work)
    work.mkdir(parents=True, exist_ok=True)
    with atomic_write(run_file) as tmp_path:
        tmp_path.write_text(text)
    return work


def other_run(out: Path, run: dict[str, Any]) -> str | None:
    """Return the first key by which unfinished work on `out` is of another run; None where it is of this one, or none.

    Keys inside of keys are joined by dots: `machine.versions.torch`.

    Args:
        run: as `open_workdir` takes it.
    """
    run_file = out.with_name(f"{out.name}.partial") / "run.json"
    if not run_file.is_file():
        return None
    return _first_unlike(json.loads(run_file.read_text()), json.loads(json.dumps(run)))


def begun_run(out: Path) -> Any:
    """Return what unfinished work on `out` says of itself, as JSON has it; None where it says nothing that is read."""
    try:
        return json.loads((out.with_name(f"{out.name}.partial") / "run.json").read_text())
    except (OSError, ValueError):
        return None


def _first_unlike(there: dict[str, Any], asked: dict[str, Any]) -> str | None:
    for key in sorted(there.keys() | asked.keys()):
        ours, theirs = there.get(key), asked.get(key)
        if ours != theirs:
            inside = _first_unlike(ours, theirs) if isinstance(ours, dict) and isinstance(theirs, dict) else None
            return f"{key}.{inside}" if inside else key
    return None


@contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """Give an empty folder beside OUT, on its file system, which goes when the block ends."""
    folder = out.with_name(f"{out.name}.scratch")
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_same(run_file: Path, run: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(run_file.read_text()) == run)
    except (FileNotFoundError, ValueError):
        return False


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a path to write to; when the block ends well, its content appears at `path` at once, durably."""
    tmp_path = path.with_name(_ASIDE.format(name=path.name, process=os.getpid()))
    try:
        yield tmp_path
        _sync(tmp_path)
        tmp_path.replace(path)
        _sync(path.parent)
    finally:
        tmp_path.unlink(missing_ok=True)


def finish(product: Path, out: Path) -> None:
    """Rename the finished folder to `out`, in place of whatever is there, without temporary files of killed processes.

    The two must be on one file system. All of it is on the disk before it gets its name, so that what it was made from
    may be deleted after.
    """
    for tmp_path in product.rglob(_ASIDE.format(name="*", process="*")):
        tmp_path.unlink()
    sync_tree(product)
    if out.exists():
        shutil.rmtree(out)
    product.rename(out)
    _sync(out.parent)


def sync_tree(folder: Path) -> None:
    """Put a folder on the disk with all that is in it."""
    for inside in [*folder.rglob("*"), folder]:
        if not inside.is_symlink():
            _sync(inside)


def discard_workdir(out: Path) -> None:
    """Remove what is left of the work on `out`, once that is in place."""
    shutil.rmtree(out.with_name(f"{out.name}.partial"), ignore_errors=True)


def link(file: Path, target: Path) -> None:
    """Make `target` a hard link to `file`; a copy where the file system has no links, or is another one."""
    try:
        target.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, target)


def link_anew(file: Path, target: Path) -> None:
    """Make `target` a hard link to `file`, in place of what an earlier attempt left there."""
    target.unlink(missing_ok=True)
    link(file, target)


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
