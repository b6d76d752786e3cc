"""The rows of an evaluation while it goes on: a line per video, whole or not at all.

OUT.partial/run.json         what is evaluated, and how
OUT.partial/rows/1-of-1.jsonl  a line for each video, by shard

A line that a killed process left half written is none. A row counts as long as its video's bytes are the same.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from tasks.storage import atomic

Item = TypeVar("Item")
Row = dict[str, Any]
"""id, group, sha256, status, reason, facts, values, features, not_installed."""

_ROWS = "rows"


class RowLog:
    """The rows that are there, and where the next ones are written."""

    def __init__(self, out: Path, run: dict[str, Any], shard: str | None):
        """Open the work on `out`, as the last attempt left it if that was of the same run.

        Args:
            run: what decides about rows, as JSON has it.
            shard: as `share` takes it; None: this call makes the whole.

        Raises:
            ValueError: shards of another evaluation are there, or this is one beside another evaluation's rows: it
                would delete their work.
        """
        if (there := atomic.other_run(out, run)) is not None:
            of_shards = {log.name for log in _logs(out)} - {_log_name(None)}
            if shard is not None or of_shards:
                asked = f"--shard {shard}" if shard is not None else "without --shard"
                raise ValueError(
                    f"{asked}: {out}.partial holds rows of another evaluation, whose {there} differs: finish that, "
                    "or delete the folder"
                )
        self._out, self.work = out, atomic.open_workdir(out, run)
        (self.work / _ROWS).mkdir(exist_ok=True)
        self._log = self.work / _ROWS / _log_name(shard)
        _mend(self._log)

    def read(self) -> dict[tuple[str, str], Row]:
        """Return the rows of all shards by id and sha256 of the video."""
        found: dict[tuple[str, str], Row] = {}
        for log in _logs(self._out):
            for line in log.read_bytes().split(b"\n"):
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                found.setdefault((row["id"], row["sha256"]), row)
        return found

    def add(self, row: Row) -> None:
        """Write a row, of which the next process finds all or nothing."""
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def _log_name(shard: str | None) -> str:
    return f"{(shard or '1/1').replace('/', '-of-')}.jsonl"


def _logs(out: Path) -> list[Path]:
    return sorted((out.with_name(f"{out.name}.partial") / _ROWS).glob("*.jsonl"))


def _mend(log: Path) -> None:
    """End a line that a killed process left half written."""
    if log.exists() and (text := log.read_bytes()) and not text.endswith(b"\n"):
        with log.open("ab") as file:
            file.write(b"\n")


def share(items: Sequence[Item], shard: str | None, together: int = 1) -> list[Item]:
    """Return every eighth item from the third on, for 3/8; all for None.

    Args:
        together: so many items are one piece of work, and stay in one shard.

    Raises:
        ValueError: it is no such part.
    """
    if shard is None:
        return list(items)
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", shard)
    if not found or int(found[1]) > int(found[2]):
        raise ValueError(f"--shard {shard} is no part of a whole: write 3/8 for the third of eight")
    pieces = [items[first : first + together] for first in range(0, len(items), together)]
    if not (chosen := pieces[int(found[1]) - 1 :: int(found[2])]):
        raise ValueError(f"--shard {shard}: there are {len(pieces)} batches of videos, too few for so many parts")
    return [item for piece in chosen for item in piece]
