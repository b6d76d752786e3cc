"""The note that a run was stopped on request, its work saved. Readable without torch; torchrun turns all exit codes
into 1."""

import json
from pathlib import Path

_STOPPED = "stopped.json"


def mark_stopped(work: Path, step: int | None) -> None:
    """Note in the folder of a run after which step it stopped on request; None takes the note away."""
    if step is None:
        (work / _STOPPED).unlink(missing_ok=True)
    else:
        (work / _STOPPED).write_text(json.dumps({"step": step}))


def stopped_at(work: Path) -> int | None:
    """Return after which step a run stopped on request; None when it did not."""
    note = work / _STOPPED
    return json.loads(note.read_text())["step"] if note.exists() else None
