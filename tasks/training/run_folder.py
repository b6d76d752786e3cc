"""The folder in which a training works, `NAME.partial`: whose it is, and whether today's run goes on there."""

import fcntl
import json
import logging
import shutil
from pathlib import Path

from stiv_model.distributed import run_identity
from stiv_model.settings import RUN_FILE, Run
from tasks.storage import atomic

log = logging.getLogger(__name__)


def open_run(run: Run, out: Path) -> Path:
    """Return the folder to train in: with the work that is there where this run is that one gone on, else empty.

    Starting weights and prompts take minutes and are made anew for another run. Checkpoints are never deleted here.

    Raises:
        ValueError: there are checkpoints or weights of another run; the message says what differs, and the ways on.
        RuntimeError: ranks of another attempt are at work there.
    """
    work = out.with_name(f"{out.name}.partial")
    _refuse_if_alive(work)
    today, before, made = run.model_dump(mode="json"), recorded(work), trained(work)
    if before is None:
        is_same = False
        if made:
            raise ValueError(
                f"{work} has {made}, and its run.json, which says of which run, is missing or damaged: put it back, or "
                f"move or delete {work} to train from the start"
            )
    else:
        was, now = run_identity.identity_of(before), run_identity.identity_of(today)
        found = run_identity.differences(was, now)
        is_same = not found
        if found and made:
            raise ValueError(
                f"{work} has {made} of another run ({run_identity.told(found)}), and nothing of it was touched: put "
                f"that back to go on, or move or delete {work} to train from the start"
            )
        if is_same and was.get("recipe.steps") != now.get("recipe.steps"):
            shutil.rmtree(work / "weights", ignore_errors=True)  # those of the shorter run's end
    if is_same:
        log.info("%s: going on with the work that is there", work)
    elif work.exists():
        log.info("%s held the beginning of another run, without a checkpoint: emptied", work)
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_write(work / RUN_FILE) as tmp_path:
        tmp_path.write_text(json.dumps(today, indent=2, sort_keys=True))
    return work


def recorded(work: Path) -> dict[str, object] | None:
    """Return what the run.json of a folder says; None without one that can be read."""
    try:
        found = json.loads((work / RUN_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def trained(work: Path) -> str | None:
    """Say what a folder has that took a training to make: a checkpoint, a damaged one too, or weights."""
    found = sorted((work / "checkpoints").glob("step-*")) + list(work.glob("weights"))
    return str(found[-1].relative_to(work)) if found else None


def _refuse_if_alive(work: Path) -> None:
    """Refuse to touch a folder whose lock the ranks of another attempt hold (`stiv_model.training.train`).

    Raises:
        RuntimeError: they do.
    """
    if not (work / "lock").exists():
        return
    with (work / "lock").open("a") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RuntimeError(f"{work} is in use by ranks of another attempt: end them first") from error
