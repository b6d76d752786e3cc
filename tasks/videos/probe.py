"""Stage videos: open every raw file, note what it is, and say of each one that is not used why."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import DECIDE_NOTHING, SandboxSettings
from tasks.storage import atomic, matching, queries, reuse, shards, tables
from tasks.storage.object_cache import ObjectCache
from tasks.storage.stage import Joined, Stage
from tasks.videos import sources, video_rules
from tasks.videos.settings import VideoSettings
from tasks.videos.sources import Item

log = logging.getLogger(__name__)

_TEXTS = ("caption", "licence", "source_url")
_FOUND = (
    *("codec", "width", "height", "fps", "seconds", "frames", "repairs"),
    *("transfer", "primaries", "colour_range"),
)
_START = "('0x' || video[:15])::BIGINT"  # of a sha256, in SQL: what begins alike is looked at, as most is not
_BYTES_PER_PIXEL = 1.5  # decoded: 8 bits, with chroma of half the width and height
_UNUSUAL = 0.1  # of sandbox.max_expansion


def probe_videos(
    source: str, items: list[Item], settings: VideoSettings, sandbox: Sandbox, cache: ObjectCache
) -> list[dict[str, Any]]:
    """Return one row of tables.VIDEOS per item; duplicates are found in `Videos.join`."""
    rows: list[dict[str, Any]] = []
    expansions: dict[str, float] = {}
    at_once = sources.lent_at_once(source, sandbox.settings.workers)
    for first in range(0, len(items), at_once):
        with ExitStack() as lent:
            found = [_look(source, item, settings, sandbox, cache, lent) for item in items[first : first + at_once]]
            _probe([(row, path) for row, path in found if path], settings, sandbox, expansions)
        rows += [row for row, _ in found]
    _warn_of_expansion(expansions, sandbox.settings.max_expansion)
    return rows


def _probe(
    todo: list[tuple[dict[str, Any], Path]], settings: VideoSettings, sandbox: Sandbox, expansions: dict[str, float]
) -> None:
    """Open some files, and complete their rows; add to `expansions` what they decode to, by uri."""
    asked = [{"path": str(path)} for _, path in todo]
    for (row, _), found in zip(todo, sandbox.map("probe", asked), strict=True):
        row["status"], row["reason"] = found["status"], found["reason"]
        if found["status"] == "ok":
            row |= {name: found[name] for name in _FOUND}
            expansions[row["uri"]] = _expansion(row, found["frames"])
            if reason := video_rules.refused_video(found, settings):
                _refuse(row, "rejected", reason)


def _look(
    source: str, item: Item, settings: VideoSettings, sandbox: Sandbox, cache: ObjectCache, lent: ExitStack
) -> tuple[dict[str, Any], Path | None]:
    """Return the item's row as far as it goes without opening the file as a video, and the file if it is to be.

    Args:
        lent: what holds the file.
    """
    row: dict[str, Any] = dict.fromkeys(tables.VIDEOS.names)
    row |= {"uri": item.uri, "size_bytes": item.size_bytes, "status": "ok"}
    if item.listed:
        row |= {"licence": item.listed.licence, "source_url": item.listed.source_url}
    if item.problem in sources.NOT_THERE:
        return _refuse(row, "failed", item.problem), None
    reason = item.problem or video_rules.refused_name(item.uri, settings)
    if not reason and item.size_bytes == 0:
        reason = "empty_file"
    if not reason and item.size_bytes > sandbox.settings.max_size_bytes:
        reason = "too_many_bytes"
    if reason:
        return _refuse(row, "rejected", reason), None
    try:
        path = lent.enter_context(sources.lend(source, item.uri, None, cache))
        row["video"] = atomic.sha256_file(path)
        row["caption"], reason = sources.caption_of(source, item, settings.max_caption_characters)
    except sources.ABSENT as error:
        return _refuse(row, "failed", sources.reason_of(error)), None
    if row["video"] in settings.forgotten:
        reason = "forgotten"
    return (_refuse(row, "rejected", reason), None) if reason else (row, path)


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


def probe_shard(
    shard: shards.Shard, source: str, settings: VideoSettings, sandbox: Sandbox, cache: ObjectCache
) -> None:
    """Probe one shard of files."""
    items = [sources.item_of(row) for row in shard.read()]
    shard.write(probe_videos(source, items, settings, sandbox, cache), tables.VIDEOS)


class Videos(Stage):
    """One row of tables.VIDEOS per raw file; of files with the same bytes the one that says most is kept.

    That is the one with most of caption, licence and source_url; of several, the first by uri. The files that an
    earlier run has probed, and that are the same still, are not opened again unless they failed.

    Args:
        source: folder, bucket or list.
        open_sandbox: gives the sandbox that files are opened in.
        cache: where objects of a bucket are kept.
    """

    name, verb, unit = "videos", "probe", "files"
    schema = sources.LISTING
    retries, retry_delay_seconds = 2, 2

    def __init__(
        self,
        source: str,
        settings: VideoSettings,
        sandbox: SandboxSettings,
        open_sandbox: Callable[[SandboxSettings], AbstractContextManager[Sandbox]] = Sandbox,
        cache: ObjectCache = sources.UNLIMITED,
    ) -> None:
        self.source, self.settings, self.sandbox, self.open_sandbox = source, settings, sandbox, open_sandbox
        self.cache = cache
        self._listed = ""  # hash of what `given` found

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        listing = scratch / "listing.parquet"
        self._listed = sources.write_listing(self.source, listing)
        return queries.read([listing])

    def decides(self) -> dict[str, Any]:
        return {
            "videos": self.settings.model_dump(exclude={"forgotten", "max_failed_fraction", "shard_files"}),
            "sandbox": self.sandbox.model_dump(exclude=DECIDE_NOTHING),
            "source": self.source,
        }

    def inputs(self) -> dict[str, Any]:
        return {
            "items": self._listed,
            "forgotten": self.settings.forgotten,
            "shard_files": self.settings.shard_files,
        }

    def shard_size(self) -> float:
        return self.settings.shard_files

    def reuse(self, given: Path, reusable: Path, reused: Path) -> bool:
        table, before = reusable / tables.VIDEO_TABLE, reusable / given.name
        if not table.exists() or not before.exists():
            return False
        names = self.schema.names

        def rows() -> Iterator[pa.RecordBatch]:
            pairs = matching.matched(shards.read_given(given), shards.read_given(before), "uri", "uri", names)
            same = (batch for now, _ in pairs for batch in now.to_batches())
            for now, made in matching.matched(same, queries.read([table]), "uri", "uri", []):
                yield from shards.placed_rows(*self._reused(now, made), tables.VIDEOS)

        return queries.write(reused, rows(), shards.placed(tables.VIDEOS)) > 0

    def _reused(self, now: pa.Table, made: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Return, of what an earlier run has made, what is taken over: not what failed; what is forgotten, as such."""
        reasons = pc.fill_null(made["reason"], "")
        is_forgotten = pc.is_in(made["video"], value_set=pa.array(self.settings.forgotten, pa.string()))
        was_forgotten, has_failed = pc.equal(reasons, "forgotten"), pc.equal(made["status"], "failed")
        is_taken = pc.or_(is_forgotten, pc.invert(pc.or_(was_forgotten, has_failed)))
        # a duplicate was one of a file that may be gone now: `join` looks again
        was_duplicate = pc.equal(reasons, "duplicate")
        none = pa.scalar(None, pa.string())
        for name, forgotten, of_duplicate in (("status", "rejected", "ok"), ("reason", "forgotten", none)):
            column = pc.if_else(is_forgotten, forgotten, pc.if_else(was_duplicate, of_duplicate, made[name]))
            made = made.set_column(made.schema.get_field_index(name), name, column)
        return now.filter(is_taken), made.filter(is_taken)

    def save_reusable(self, given: Path, out: Path, reusable: Path) -> None:
        reuse.save_reusable([out / tables.VIDEO_TABLE, given], reusable)

    @contextmanager
    def worker(self, product: Path, reusable: Path) -> Iterator[Callable[[shards.Shard], None]]:
        with self.open_sandbox(self.sandbox) as opened:
            yield partial(probe_shard, source=self.source, settings=self.settings, sandbox=opened, cache=self.cache)

    def join(self, work: shards.Work, product: Path) -> Joined:
        table, probed = product / tables.VIDEO_TABLE, work.given.with_name("probed.parquet")
        queries.write(probed, shards.joined(work, tables.VIDEOS), tables.VIDEOS)
        kept = _rejected(queries.read([probed]), _duplicates(probed), "duplicate")
        queries.write(table, kept, tables.VIDEOS)
        account = queries.settle("videos", work.keys("uri"), queries.outcomes(table, "uri"), "uri")
        limit, place = self.settings.max_failed_fraction, "videos.max_failed_fraction"
        tables.check_failures(account, limit, place, queries.named(table, "uri"), "uri")
        return Joined((account,))


def _duplicates(probed: Path) -> np.ndarray:
    """Return the rows of files that have the bytes of another that says more, rising, int64.

    Of files that contradict the one that is kept, some are named in the log.
    """
    nulls = " + ".join(f"({text} IS NULL)::INT" for text in _TEXTS)
    apart = [f"CASE WHEN {text} != kept.{text} THEN {queries.quoted(text)} END" for text in _TEXTS]
    with queries.connect(probed.parent) as connection:
        equals = f"""
            CREATE TABLE equals AS
            SELECT row, uri, {", ".join(_TEXTS)}, first_value({{'uri': uri, {_struct(_TEXTS)}}}) OVER of_video AS kept
            FROM (SELECT *, file_row_number AS row, {_START} AS start FROM {queries.scan([probed], numbered=True)}
                  WHERE status = 'ok') AS usable
            SEMI JOIN (SELECT {_START} AS start FROM {queries.scan([probed])} WHERE status = 'ok'
                       GROUP BY start HAVING count(*) > 1) AS several USING (start)
            WINDOW of_video AS (PARTITION BY video ORDER BY {nulls}, uri)"""
        connection.execute(equals)
        lost = connection.sql("SELECT row FROM equals WHERE uri != kept.uri ORDER BY row").fetchnumpy()["row"]
        told = connection.sql(
            f"""SELECT kept.uri, uri, concat_ws(', ', {", ".join(apart)}) AS texts, count(*) OVER () AS count
                FROM equals WHERE uri != kept.uri AND texts != '' ORDER BY row LIMIT 4"""
        ).fetchall()
    if told:
        log.warning(
            "%d files have the bytes of another but contradict it; used is what is said of %s",
            told[0][3],
            "; ".join(f"{kept!r}, not {uri!r} ({texts})" for kept, uri, texts, _ in told[:3])
            + ("; ..." if len(told) > 3 else ""),
        )
    return np.asarray(lost, np.int64)


def _struct(columns: Iterable[str]) -> str:
    return ", ".join(f"{queries.quoted(name)}: {name}" for name in columns)


def _rejected(rows: Iterable[pa.RecordBatch], lost: np.ndarray, reason: str) -> Iterator[pa.RecordBatch]:
    """Give the rows, and those with the numbers `lost`, rising, rejected for a reason."""
    first = 0
    for batch in rows:
        here = lost[np.searchsorted(lost, first) : np.searchsorted(lost, first + len(batch))] - first
        if len(here):
            for name, value in (("status", "rejected"), ("reason", reason)):
                texts = batch[name].to_numpy(zero_copy_only=False).copy()
                texts[here] = value
                batch = batch.set_column(batch.schema.get_field_index(name), name, pa.array(texts, pa.string()))
        first += len(batch)
        yield batch
