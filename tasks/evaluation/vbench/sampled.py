"""The folder of a suite's videos: each whole or absent, and all made with the same settings.

OUT/sampling.json         the settings of all, and what made them
OUT/records/1-of-1.jsonl  a line for each video: name, prompt, text, seed, sha256
OUT/videos/               the videos and nothing else, as VBench wants a folder
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from tasks.evaluation.vbench.suite import PlannedVideo
from tasks.storage import atomic

VIDEOS = "videos"
MANIFEST = "sampling.json"
_RECORDS = "records"


class SampledFolder:
    """The folder while a shard of it is made."""

    def __init__(self, out: Path, settings: Mapping[str, Any], notes: Mapping[str, Any], shard: str):
        """Open the folder, or make it.

        Args:
            settings: what decides about the videos, as JSON has it: the same for all of the folder.
            notes: what is told beside, and may differ the next time.
            shard: as `suite.shard` takes it; no two processes may have the same.

        Raises:
            ValueError: something else is in the folder, or its videos were made with other settings.
        """
        self.out, self.videos = out, out / VIDEOS
        stated = json.loads(json.dumps(settings))
        manifest = out / MANIFEST
        if manifest.exists():
            _check_same(manifest, stated)
        elif out.exists() and any(out.iterdir()):
            raise ValueError(f"--out {out} holds other files and no {MANIFEST}: name a new folder")
        self.videos.mkdir(parents=True, exist_ok=True)
        (out / _RECORDS).mkdir(exist_ok=True)
        if not manifest.exists():
            with atomic.atomic_write(manifest) as path:
                path.write_text(json.dumps({"settings": stated, "notes": dict(notes)}, indent=2, ensure_ascii=False))
        self._settings = sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
        label = shard.replace("/", "-of-")
        self._log, self._tmp = out / _RECORDS / f"{label}.jsonl", out / f".{label}.tmp"
        self._mend()

    def present(self, videos: Sequence[PlannedVideo]) -> set[str]:
        """Return the names of those videos that are there, by any shard.

        Raises:
            ValueError: one is there that no shard has recorded, that was changed since, or that other settings made.
        """
        recorded = {(row["name"], row["sha256"]): row["settings"] for row in records(self.out)}
        names = {name for name, _ in recorded}
        found = set()
        for video in videos:
            path = self.videos / video.name
            if not path.exists():
                continue
            if video.name not in names:
                raise ValueError(f"{path} is there, and no shard has recorded it: move it away, or name a new folder")
            settings = recorded.get((video.name, atomic.sha256_file(path)))
            if settings is None:
                raise ValueError(
                    f"{path} is not as it was made: its sha256 is another; delete it, and it is made again"
                )
            if settings != self._settings:
                raise ValueError(f"{path} was made with other settings, by a process of the same time: delete it")
            found.add(video.name)
        return found

    def add(self, video: PlannedVideo, write: Callable[[Path], None]) -> None:
        """Write a video: recorded first, then named, so that one that has its name is known.

        Args:
            write: what writes it, at the path that it is given.
        """
        write(self._tmp)
        with self._tmp.open("rb") as file:
            os.fsync(file.fileno())
        row = {"name": video.name, "prompt": video.prompt, "text": video.text, "seed": video.seed}
        row |= {"sha256": atomic.sha256_file(self._tmp), "settings": self._settings}
        with self._log.open("a", encoding="utf-8") as file_of_rows:
            file_of_rows.write(json.dumps(row, ensure_ascii=False) + "\n")
            file_of_rows.flush()
            os.fsync(file_of_rows.fileno())
        self._tmp.replace(self.videos / video.name)

    def _mend(self) -> None:
        """End a line that a killed process left half written."""
        if self._log.exists() and (text := self._log.read_bytes()) and not text.endswith(b"\n"):
            with self._log.open("ab") as file:
                file.write(b"\n")


def records(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the record of each video that was made; a line that was left half written is none: it has no video."""
    for log in sorted((out / _RECORDS).glob("*.jsonl")):
        for line in log.read_bytes().split(b"\n"):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and {"name", "sha256", "settings"} <= row.keys():
                yield row


def read_settings(manifest: Path) -> dict[str, Any]:
    """Return the settings that a folder's videos were made with.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not what `stiv vbench sample` writes.
    """
    try:
        return dict(json.loads(manifest.read_text(encoding="utf-8"))["settings"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{manifest} is not what stiv vbench sample writes: name another folder") from None


def _check_same(manifest: Path, settings: dict[str, Any]) -> None:
    try:
        there = read_settings(manifest)
    except ValueError:
        raise ValueError(f"{manifest} is not what this command writes: name a new folder") from None
    if different := list(_differences(there, settings, "")):
        key, then, now = different[0]
        made, asked = json.dumps(then), json.dumps(now)
        raise ValueError(f"{manifest.parent} was made with {key} {made}, and this is {asked}: name a new folder")


def _differences(then: Any, now: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            yield from _differences(then.get(key), now.get(key), f"{place}.{key}" if place else key)
    elif then != now:
        yield place, then, now
