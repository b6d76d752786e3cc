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
        RuntimeError: it failed; the message says why.
    """
    ran, said = True, ""

    def listen(line: str) -> None:
        nonlocal ran, said
        ran = ran and _SKIPPED not in line
        said = line if line.startswith("stiv ") else said  # the one line with which our command ends
        on_line(line)

    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage, *(["--force"] if force else [])]
    # dvc.yaml says `python`: that must be this one, also when the environment is not activated
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    try:
        processes.run(command, environment | {"PATH": path}, listen)
    except RuntimeError as error:
        raise RuntimeError(f"stage {stage} failed: {said or error}") from None
    return ran
