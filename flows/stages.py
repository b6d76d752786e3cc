"""What dvc.yaml says: its stages in order, and how to bring one up to date. The only code that knows DVC."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import networkx
from dvc.repo import Repo

from tasks import processes

_SKIPPED = "didn't change, skipping"


def in_order() -> list[str]:
    """Return stage names, each after every stage it depends on."""
    with Repo() as repo:
        upstream_first = networkx.topological_sort(repo.index.graph.reverse())
        return [stage.addressing for stage in upstream_first if stage.cmd]


def reproduce(stage: str, force: bool, environment: dict[str, str], on_line: Callable[[str], None]) -> bool:
    """Run one stage through DVC, which skips it when nothing it depends on has changed.

    Returns:
        whether it ran.
    Raises:
        RuntimeError: it failed; the message carries its last lines.
    """
    ran = True

    def listen(line: str) -> None:
        nonlocal ran
        ran = ran and _SKIPPED not in line
        on_line(line)

    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage, *(["--force"] if force else [])]
    # dvc.yaml says `python`: that must be this one, also when the environment is not activated
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    processes.run(command, environment | {"PATH": path}, listen)
    return ran
