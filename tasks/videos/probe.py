"""Stage videos: open every raw file, note what it is, and say of each one that is not used why."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import DECIDE_NOTHING, SandboxSettings
from tasks.storage import atomic, reuse, shards, tables
from tasks.storage.stage import Joined, Stage
from tasks.videos import sources, video_rules
from tasks.videos.settings import VideoSettings
from tasks.videos.sources import Item

log = logging.getLogger(__name__)

SHARD_FILES = 128
_ITEMS = "items.json"
_TEXTS = ("caption", "licence", "source_url")
_FOUND = (
    *("codec", "width", "height", "fps", "seconds", "frames", "repairs"),
    *("transfer", "primaries", "colour_range"),
)
_BYTES_PER_PIXEL = 1.5  # decoded: 8 bits, with chroma of half the width and height
_UNUSUAL = 0.1  # of sandbox.max_expansion


def probe_videos(
    source: str, items: list[Item], settings: VideoSettings, sandbox: Sandbox, cache: Path
) -> list[dict[str, Any]]:
    """Return one row of tables.VIDEOS per item; duplicates are found in `Videos.join`."""
    rows = [_look(source, item, settings, sandbox, cache) for item in items]
    todo = [row for row in rows if row["status"] == "ok"]
    asked = [{"path": str(sources.local_file(source, row["uri"], row["video"], cache))} for row in todo]
    expansions: dict[str, float] = {}
    for row, found in zip(todo, sandbox.map("probe", asked), strict=True):
        row["status"], row["reason"] = found["status"], found["reason"]
        if found["status"] == "ok":
            row |= {name: found[name] for name in _FOUND}
            expansions[row["uri"]] = _expansion(row, found["frames"])
            if reason := video_rules.refused_video(found, settings):
                _refuse(row, "rejected", reason)
    _warn_of_expansion(expansions, sandbox.settings.max_expansion)
    return rows


def _look(source: str, item: Item, settings: VideoSettings, sandbox: Sandbox, cache: Path) -> dict[str, Any]:
    """Return the item's row as far as it goes without opening the file as a video."""
    row: dict[str, Any] = dict.fromkeys(tables.VIDEOS.names)
    row |= {"uri": item.uri, "size_bytes": item.size_bytes, "status": "ok"}
    if item.listed:
        row |= {"licence": item.listed.licence, "source_url": item.listed.source_url}
    if item.problem in sources.NOT_THERE:
        return _refuse(row, "failed", item.problem)
    if item.problem:
        return _refuse(row, "rejected", item.problem)
    if reason := video_rules.refused_name(item.uri, settings):
        return _refuse(row, "rejected", reason)
    if item.size_bytes == 0:
        return _refuse(row, "rejected", "empty_file")
    if item.size_bytes > sandbox.settings.max_size_bytes:
        return _refuse(row, "rejected", "too_many_bytes")
    try:
        row["video"] = atomic.sha256_file(sources.local_file(source, item.uri, None, cache))
        row["caption"], reason = sources.caption_of(source, item, settings.max_caption_characters)
    except sources.ABSENT as error:
        return _refuse(row, "failed", sources.reason_of(error))
    if row["video"] in settings.forgotten:
        return _refuse(row, "rejected", "forgotten")
    return _refuse(row, "rejected", reason) if reason else row


def _expansion(row: dict[str, Any], frames: int) -> float:
    """Return about how many bytes a video decodes to, per byte of the file."""
    return frames * row["width"] * row["height"] * _BYTES_PER_PIXEL / row["size_bytes"]


def _warn_of_expansion(expansions: dict[str, float], limit: float) -> None:
    """Name the files that decode to unusually much: a screen that stands still, or what is meant to fill the memory."""
    unusual = sorted(uri for uri, times in expansions.items() if times > _UNUSUAL * limit)
    if unusual:
        log.warning(
            "%d of %d videos decode to more than %.0f times their bytes (sandbox.max_expansion stops at %.0f): %s",
            len(unusual),
            len(expansions),
            _UNUSUAL * limit,
            limit,
            ", ".join(map(repr, unusual[:3])) + (" ..." if len(unusual) > 3 else ""),
        )


def _refuse(row: dict[str, Any], status: str, reason: str) -> dict[str, Any]:
    row["status"], row["reason"] = status, reason
    return row


def probe_shard(shard: shards.Shard, source: str, settings: VideoSettings, sandbox: Sandbox, cache: Path) -> None:
    """Probe one shard of files."""
    shard.write(probe_videos(source, shard.given, settings, sandbox, cache), tables.VIDEOS)


def load_reusable(reusable: Path, work: Path, items: list[Item], settings: VideoSettings) -> shards.Shard:
    """Make a shard of the files that an earlier run has probed and that are the same still, unless they failed.

    Args:
        reusable: folder of the earlier run's table, with the items that it was given (`Videos.save_reusable`).
    """
    table, given = reusable / tables.VIDEO_TABLE, reusable / _ITEMS
    if not table.exists() or not given.exists():
        return shards.reused(work, [])
    before = {item[0]: item for item in json.loads(given.read_text())}
    same = {item.uri: item for item in items if before.get(item.uri) == json.loads(json.dumps(item))}
    rows = {}
    for row in shards.rows(table, tables.VIDEOS):
        if row["reason"] == "duplicate":  # of a file that may be gone now: `Videos.join` looks again
            row |= {"status": "ok", "reason": None}
        if row["video"] in settings.forgotten:
            _refuse(row, "rejected", "forgotten")
        elif row["reason"] == "forgotten" or row["status"] == "failed" or row["uri"] not in same:
            continue
        rows[row["uri"]] = row
    reused = shards.reused(work, [item for uri, item in same.items() if uri in rows])
    if reused.given and not reused.is_done:
        reused.write([rows[item.uri] for item in reused.given], tables.VIDEOS)
    return reused


class Videos(Stage[Item]):
    """One row of tables.VIDEOS per raw file; of files with the same bytes the one that says most is kept.

    That is the one with most of caption, licence and source_url; of several, the first by uri.

    Args:
        source: folder, bucket or list.
        open_sandbox: gives the sandbox that files are opened in.
    """

    name, verb, unit = "videos", "probe", "files"
    retries, retry_delay_seconds = 2, 2

    def __init__(
        self,
        source: str,
        settings: VideoSettings,
        sandbox: SandboxSettings,
        open_sandbox: Callable[[SandboxSettings], AbstractContextManager[Sandbox]] = Sandbox,
    ) -> None:
        self.source, self.settings, self.sandbox, self.open_sandbox = source, settings, sandbox, open_sandbox

    def given(self) -> list[Item]:
        return sources.listing(self.source)

    def decides(self) -> dict[str, Any]:
        return {
            "videos": self.settings.model_dump(exclude={"forgotten", "max_failed_fraction"}),
            "sandbox": self.sandbox.model_dump(exclude=DECIDE_NOTHING),
            "source": self.source,
        }

    def inputs(self, given: list[Item]) -> dict[str, Any]:
        return {"items": sources.listing_hash(given), "forgotten": self.settings.forgotten}

    def shard_size(self) -> float:
        return SHARD_FILES

    def load_reusable(self, reusable: Path, work: Path, given: list[Item]) -> shards.Shard:
        return load_reusable(reusable, work, given, self.settings)

    def save_reusable(self, given: list[Item], out: Path, reusable: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            items = Path(folder) / _ITEMS
            items.write_text(json.dumps(given))
            reuse.save_reusable([out / tables.VIDEO_TABLE, items], reusable)

    @contextmanager
    def worker(self, product: Path, reusable: Path) -> Iterator[Callable[[shards.Shard], None]]:
        with self.open_sandbox(self.sandbox) as opened:
            yield partial(probe_shard, source=self.source, settings=self.settings, sandbox=opened, cache=sources.CACHE)

    def join(self, parts: list[shards.Shard], product: Path) -> Joined:
        rows: list[dict[str, Any]] = []
        for part in parts:
            rows += tables.read_rows(part.path, tables.VIDEOS)
        rows.sort(key=lambda row: row["uri"])
        _keep_one_of_equals(tables.ok(rows))
        given = (item.uri for part in parts for item in part.given)
        account = tables.reconcile("videos", given, rows, "uri")
        tables.check_failures(account, self.settings.max_failed_fraction, "videos.max_failed_fraction", rows, "uri")
        tables.write_rows(product / tables.VIDEO_TABLE, rows, tables.VIDEOS)
        return Joined((account,))


def _keep_one_of_equals(rows: list[dict[str, Any]]) -> None:
    """Reject all but one of the files with the same bytes, and name those that contradict the one that is kept.

    Args:
        rows: ok, sorted by uri.
    """
    equals: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        equals.setdefault(row["video"], []).append(row)
    contradictions = []
    for same in equals.values():
        kept = min(same, key=lambda row: sum(row[text] is None for text in _TEXTS))
        for row in same:
            if row is kept:
                continue
            _refuse(row, "rejected", "duplicate")
            if apart := [text for text in _TEXTS if None not in (row[text], kept[text]) and row[text] != kept[text]]:
                contradictions.append(f"{kept['uri']!r}, not {row['uri']!r} ({', '.join(apart)})")
    if contradictions:
        log.warning(
            "%d files have the bytes of another but contradict it; used is what is said of %s",
            len(contradictions),
            "; ".join(contradictions[:3]) + ("; ..." if len(contradictions) > 3 else ""),
        )
