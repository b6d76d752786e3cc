"""Stage shots: cut every video into shots, and measure them, in the sandbox (by `tasks/decoding/cuts.py`).

No video is cut or encoded again: a shot is a row with two timestamps, and some small pictures.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import groupby, pairwise, zip_longest
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.decoding.limits import MIN_DECODED
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import DECIDE_NOTHING, SandboxSettings
from tasks.storage import atomic, matching, parts, queries, reuse, shards, stills, tables
from tasks.storage.object_cache import ObjectCache
from tasks.storage.stage import Joined, Stage
from tasks.videos import shot_rules, sources
from tasks.videos.settings import ShotSettings

log = logging.getLogger(__name__)

_ALL_SECONDS = 1e6  # beyond the end of any video
_PART = "part"  # column: number of the part that a video belongs to
_OF_VIDEO = ("video", "uri", "repairs", "width", "height", "caption", "licence", "source_url")


def split_videos(
    source: str, videos: list[dict[str, Any]], settings: ShotSettings, sandbox: Sandbox, cache: ObjectCache
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Cut some videos into shots.

    Returns:
        Rows of tables.SPLITS (one per video), of SHOTS, and of STILLS (one per shot that is ok), in order.
    """
    results: dict[str, dict[str, Any]] = {}
    at_once = sources.lent_at_once(source, sandbox.settings.workers)
    for first in range(0, len(videos), at_once):
        with ExitStack() as lent:
            results |= _cut(source, videos[first : first + at_once], settings, sandbox, cache, lent)

    splits, shots, stills = [], [], []
    for video in videos:
        result = results[video["video"]]
        parts = result.get("shots", [])
        splits.append(_split_row(video, result))
        rows = [_shot_row(video, part) for part in parts]
        shots += rows
        stills += [
            {"clip": row["clip"], "stills": part["stills"]}
            for row, part in zip(rows, parts, strict=True)
            if row["status"] == "ok"
        ]
    return splits, shots, stills


def _cut(
    source: str,
    videos: list[dict[str, Any]],
    settings: ShotSettings,
    sandbox: Sandbox,
    cache: ObjectCache,
    lent: ExitStack,
) -> dict[str, dict[str, Any]]:
    """Return what became of each of a few videos, whose files `lent` holds, by its sha256."""
    asked: list[tuple[str, dict[str, Any]]] = []
    results: dict[str, dict[str, Any]] = {}
    rules = shot_rules.rules_of(settings)
    for video in videos:
        path, reason = _unchanged(source, video, cache, lent)
        if reason:
            results[video["video"]] = {"status": "failed", "reason": reason}
        else:
            of_video = {"path": str(path), "fps": video["fps"], "repairs": video["repairs"] or []}
            asked += [(video["video"], {**of_video, **part, **rules}) for part in _parts(video, settings)]
    found = sandbox.map("split", [arguments for _, arguments in asked])
    by_video: dict[str, list[dict[str, Any]]] = {}
    for (name, _), result in zip(asked, found, strict=True):
        by_video.setdefault(name, []).append(result)
    return results | {row["video"]: _merged(by_video[row["video"]], row) for row in videos if row["video"] in by_video}


def _parts(video: dict[str, Any], settings: ShotSettings) -> list[dict[str, Any]]:
    """Return the arguments that say which part of a video one process analyses; of most videos it is all."""
    count = ceil(video["seconds"] / settings.part_seconds)
    if count <= 1:
        return [{"claimed_frames": video["frames"]}]
    bounds = [settings.part_seconds * number for number in range(count)] + [_ALL_SECONDS]
    claimed = int(settings.part_seconds * video["fps"])
    return [{"claimed_frames": claimed, "part": list(part)} for part in pairwise(bounds)]


def _merged(parts: list[dict[str, Any]], video: dict[str, Any]) -> dict[str, Any]:
    """Return what became of a video of which each part was analysed by itself; of most there is one."""
    if broken := next((part for part in parts if part["status"] != "ok"), None):
        return {"status": broken["status"], "reason": broken["reason"]}
    frames = sum(part["frames"] for part in parts)
    if frames < MIN_DECODED * video["frames"]:
        return {"status": "failed", "reason": "truncated"}
    rows = [part["shots"] for part in parts if part["shots"]]
    if problem := _contradiction(rows, video["seconds"]):
        log.warning("%s: bad_result: %s", video["uri"], problem)
        return {"status": "failed", "reason": "bad_result"}
    for earlier, later in pairwise(rows):
        earlier[-1] |= {"end_pts": later[0]["start_pts"], "end": later[0]["start"]}
        later[0]["transition"] = "split"
    return {"status": "ok", "reason": None, "frames": frames, "shots": [row for some in rows for row in some]}


def _contradiction(rows: list[list[dict[str, Any]]], seconds: float) -> str | None:
    """Say where the shots of a video's parts, each whole in itself, do not fit one another, or the video's length."""
    for earlier, later in pairwise(rows):
        last, first = earlier[-1], later[0]
        if first["time_base"] != last["time_base"] or first["start_pts"] - last["start_pts"] < last["frames"]:
            return f"a part begins at {first['start']} s, within the shot from {last['start']} s"
    taken = rows[-1][-1]["end"] - rows[0][0]["start"] if rows else 0.0
    # how long the last frame lasts is guessed from the one before it, which may have taken all the time before
    return f"its shots take {taken} of {seconds} s" if taken > 2 * seconds + 1 else None


def _unchanged(
    source: str, video: dict[str, Any], cache: ObjectCache, lent: ExitStack
) -> tuple[Path | None, str | None]:
    """Return the video's file, held by `lent`, or the reason code if it is not the one that was probed."""
    try:
        path = lent.enter_context(sources.lend(source, video["uri"], video["video"], cache))
        return (path, None) if atomic.sha256_file(path) == video["video"] else (None, "changed_since_probe")
    except sources.ABSENT as error:
        return None, sources.reason_of(error)
    except ValueError:
        return None, "changed_since_probe"


def _split_row(video: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    return {
        "video": video["video"],
        "status": result["status"],
        "reason": result["reason"],
        "frames": result.get("frames"),
        "shots": len(result.get("shots", [])),
    }


def _shot_row(video: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    return {
        "clip": tables.clip_id(video["video"], part["start_pts"], part["end_pts"]),
        **{name: video[name] for name in _OF_VIDEO},
        **{name: value for name, value in part.items() if name != "stills"},
    }


def split_shard(
    shard: shards.Shard,
    source: str,
    settings: ShotSettings,
    sandbox: Sandbox,
    cache: ObjectCache,
    product: Path,
    reusable: Path,
) -> None:
    """Cut one shard of videos, rows of tables.VIDEOS with their part, into shots, and write the stills of its parts.

    Args:
        product: folder that becomes the output.
        reusable: folder of an earlier run, from which videos are taken that it has split: those that failed are tried
            again.
    """
    videos = shard.read()
    known = _read_known(reusable, videos)
    new = split_videos(source, [row for row in videos if row["video"] not in known], settings, sandbox, cache)
    made = {row["video"]: Split(row, [], []) for row in new[0]} | known
    for row in new[1]:
        made[row["video"]].shots.append(row)
    by_short = {_short(video): split for video, split in made.items()}
    for row in new[2]:
        by_short[_short(row["clip"])].stills.append(row)
    for part, of_part in groupby(videos, key=lambda row: int(row[_PART])):
        pictures = [row for video in of_part for row in made[video["video"]].stills]
        if pictures:
            stills.write_part(product / stills.FOLDER, part, pictures)
        else:  # an attempt that was killed may have left one, of videos that can no longer be read
            (product / stills.FOLDER / parts.file_name(part, stills.SUFFIX)).unlink(missing_ok=True)
    with atomic.atomic_write(shots_of(shard)) as tmp_path:
        rows = [row for video in videos for row in made[video["video"]].shots]
        tables.write_rows(tmp_path, rows, tables.SHOTS)
    shard.write([made[video["video"]].row for video in videos], tables.SPLITS)  # last: with it, the shard is done


class Split(NamedTuple):
    """What became of a video: its row of SPLITS, and those of SHOTS and STILLS."""

    row: dict[str, Any]
    shots: list[dict[str, Any]]
    stills: list[dict[str, Any]]


def _read_known(reusable: Path, videos: list[dict[str, Any]]) -> dict[str, Split]:
    """Return what an earlier run has made of these videos, unless they failed, with what is said of them now."""
    if not (reusable / tables.SPLIT_TABLE).exists():
        return {}
    now = {video["video"]: video for video in videos}
    rows = [row for row in _rows_of(reusable / tables.SPLIT_TABLE, now) if row["status"] != "failed"]
    known = {row["video"]: Split(row, [], []) for row in rows}
    for row in _rows_of(reusable / tables.SHOT_TABLE, now):
        if row["video"] in known:
            carried = {name: now[row["video"]][name] for name in _OF_VIDEO}
            known[row["video"]].shots.append(row | carried)
    kept = {row["clip"]: split for split in known.values() for row in tables.ok(split.shots)}
    for clip, pictures in stills.read(reusable, list(kept)).items():
        kept[clip].stills.append({"clip": clip, "stills": pictures})
    return known


def _rows_of(table: Path, videos: Collection[str]) -> list[dict[str, Any]]:
    """Return the rows of some videos, of a table that is sorted by video, in order."""
    of_range = (pc.field("video") >= min(videos)) & (pc.field("video") <= max(videos))
    rows: list[dict[str, Any]] = pq.read_table(table, filters=of_range).to_pylist()
    return [row for row in rows if row["video"] in videos]


def _short(name: str) -> str:
    """Return of a shot's name, or a video's, what says which video it is."""
    return tables.clip_id(name, 0, 0).partition("-")[0]


def shots_of(shard: shards.Shard) -> Path:
    """Return the file beside a shard's table for its rows of tables.SHOTS."""
    return shard.path.with_name(f"{shard.path.stem}.{tables.SHOT_TABLE}")


class Shots(Stage):
    """A row of tables.SPLITS per video, of SHOTS per shot, and its stills, in the order of the videos' sha256.

    Args:
        source: folder, bucket or list.
        videos: folder of stage videos.
        open_sandbox: gives the sandbox that files are opened in.
        cache: where objects of a bucket are kept.
    """

    name, verb, unit = "shots", "split", "hours"
    schema = tables.VIDEOS.append(pa.field(_PART, pa.int64()))
    weight, weight_per_unit, together = "seconds", 3600, _PART
    retries, retry_delay_seconds = 2, 2

    def __init__(
        self,
        source: str,
        videos: Path,
        settings: ShotSettings,
        sandbox: SandboxSettings,
        open_sandbox: Callable[[SandboxSettings], AbstractContextManager[Sandbox]] = Sandbox,
        cache: ObjectCache = sources.UNLIMITED,
    ) -> None:
        self.cache = cache
        self.table = videos / tables.VIDEO_TABLE
        self.source, self.settings, self.sandbox, self.open_sandbox = source, settings, sandbox, open_sandbox
        self._parts = 1  # chosen by `given`

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        count = sum(map(len, tables.usable(self.table, tables.VIDEOS, ["video"])))
        self._parts = parts.choose(count, parts.count_before([reusable / stills.FOLDER]))
        with queries.connect(scratch) as connection:
            query = f"SELECT * FROM {queries.scan([self.table])} WHERE status = 'ok' ORDER BY video"
            for batch in queries.batches(connection, query, tables.VIDEOS):
                numbers = pa.array(parts.numbers(batch["video"], self._parts))
                yield pa.RecordBatch.from_arrays([*batch.columns, numbers], schema=self.schema)

    def decides(self) -> dict[str, Any]:
        return {
            "shots": self.settings.model_dump(exclude={"shard_seconds", "max_failed_fraction"}),
            "made_by": shot_rules.made_by(self.settings),
            "sandbox": self.sandbox.model_dump(exclude=DECIDE_NOTHING),
        }

    def inputs(self) -> dict[str, Any]:
        made_from = {"source": self.source, "videos": atomic.sha256_file(self.table)}
        return made_from | {"shard_seconds": self.settings.shard_seconds, "parts": self._parts}

    def shard_size(self) -> float:
        return self.settings.shard_seconds

    def reuse(self, given: Path, reusable: Path, reused: Path) -> bool:
        """Take over whole parts whose videos are the same, and none of which failed."""
        before, splits = reusable / given.name, reusable / tables.SPLIT_TABLE
        if not before.exists():
            return False
        is_changed = self._changed_parts(given, before, splits)

        def rows() -> Iterator[pa.RecordBatch]:
            pairs = matching.matched(shards.read_given(given), queries.read([splits]), "video", "video", [])
            for now, made in pairs:
                is_kept = pa.array(~is_changed[now[_PART].to_numpy()])
                yield from shards.placed_rows(now.filter(is_kept), made.filter(is_kept), tables.SPLITS)

        return queries.write(reused, rows(), shards.placed(tables.SPLITS)) > 0

    def _changed_parts(self, given: Path, before: Path, splits: Path) -> np.ndarray:
        """Say of each part whether its videos are others than before, or one of them had failed: bool (parts,)."""
        rows_now, rows_before, same, failed = (np.zeros(self._parts, np.int64) for _ in range(4))
        for counts, file in ((rows_now, given), (rows_before, before)):
            for batch in shards.read_given(file, [_PART]):
                numbers = batch.column(0).to_numpy()
                counts += np.bincount(numbers[numbers < self._parts], minlength=self._parts)
        pairs = matching.matched(
            shards.read_given(given), shards.read_given(before), "video", "video", self.schema.names
        )
        for now, _ in pairs:
            same += np.bincount(now[_PART].to_numpy(), minlength=self._parts)
        for batch in queries.read([splits], ["video", "status"]):
            lost = batch.filter(pc.equal(batch["status"], "failed"))["video"]
            failed += np.bincount(parts.numbers(lost, self._parts), minlength=self._parts)
        return (rows_now != same) | (rows_before != same) | (failed > 0)

    def save_reusable(self, given: Path, out: Path, reusable: Path) -> None:
        names = (tables.SPLIT_TABLE, tables.SHOT_TABLE, stills.FOLDER)
        reuse.save_reusable([*(out / name for name in names), given], reusable, stills.hashes(out))

    @contextmanager
    def worker(self, product: Path, reusable: Path) -> Iterator[Callable[[shards.Shard], None]]:
        (product / stills.FOLDER).mkdir(exist_ok=True)
        with self.open_sandbox(self.sandbox) as opened:
            yield partial(
                split_shard,
                source=self.source,
                settings=self.settings,
                sandbox=opened,
                cache=self.cache,
                product=product,
                reusable=reusable,
            )

    def join(self, work: shards.Work, product: Path) -> Joined:
        splits, shots = product / tables.SPLIT_TABLE, product / tables.SHOT_TABLE
        queries.write(splits, shards.joined(work, tables.SPLITS), tables.SPLITS)
        reused = self._reused_parts(work)
        queries.write(shots, self._joined_shots(work, reused), tables.SHOTS)
        self._finish_stills(work, product / stills.FOLDER, reused)
        of_videos = queries.settle("videos", work.keys("video"), queries.outcomes(splits, "video"), "video")
        _check_shots(splits, shots)
        of_shots = queries.tally("shots", queries.outcomes(shots, "clip"), "clip")
        limit, place = self.settings.max_failed_fraction, "shots.max_failed_fraction"
        tables.check_failures(of_videos, limit, place, _with_uri(work, splits), "uri")
        tables.check_failures(of_shots, 0.0, place)
        return Joined((of_videos, of_shots), {"made_by": shot_rules.made_by(self.settings)})

    def _joined_shots(self, work: shards.Work, reused: set[int]) -> Iterator[pa.RecordBatch]:
        """Give the rows of all shots, those of the parts that are reused among them, in order."""
        new = shards.table_batches(map(shots_of, work.parts), tables.SHOTS)
        if not reused:
            return new
        before = shards.table_batches([work.reusable / tables.SHOT_TABLE], tables.SHOTS)
        return shards.merge([self._by_part(new), self._by_part(before, reused)])

    def _by_part(self, rows: Iterable[pa.RecordBatch], wanted: Collection[int] | None = None) -> shards.Keyed:
        for batch in rows:
            numbers = parts.numbers(batch["video"], self._parts)
            if wanted is not None:
                is_wanted = np.isin(numbers, list(wanted))
                numbers, batch = numbers[is_wanted], batch.filter(pa.array(is_wanted))
            if len(batch):
                yield numbers, batch

    def _reused_parts(self, work: shards.Work) -> set[int]:
        found: set[int] = set()
        for batch in queries.read([work.reused], ["video"]) if work.reused else ():
            found.update(parts.numbers(batch["video"], self._parts).tolist())
        return found

    def _finish_stills(self, work: shards.Work, folder: Path, of_reused: set[int]) -> None:
        """Link the parts that are reused, and write which parts there are."""
        earlier = work.reusable / stills.FOLDER
        reused = {parts.file_name(part, stills.SUFFIX) for part in of_reused}
        known = parts.read(earlier).sha256 if reused else {}
        for name in sorted(reused.intersection(known)):
            atomic.link_anew(earlier / name, folder / name)
        made = {file.name: file for file in parts.files(folder, stills.SUFFIX)}
        hashes = {name: known[name] if name in reused else atomic.sha256_file(file) for name, file in made.items()}
        parts.write(folder, self._parts, hashes)


def _check_shots(splits: Path, shots: Path) -> None:
    """Check that each video has the shots that it was cut into, and each of them once.

    Raises:
        AssertionError: it has others.
    """
    wanted = (
        (row["video"], row["shots"])
        for batch in queries.read([splits], ["video", "shots"])
        for row in batch.to_pylist()
        if row["shots"]
    )
    clips = (row for batch in queries.read([shots], ["video", "clip"]) for row in batch.to_pylist())
    for (video, count), found in zip_longest(wanted, groupby(clips, key=lambda row: row["video"]), fillvalue=("", ())):
        own = [row["clip"] for row in found[1]]
        is_same = found[0] == video and len(own) == count and len(set(own)) == count
        assert is_same, (
            f"a video's shots are not those that it was cut into: {video or found[0]} has {len(own)}, not {count}"
        )


def _with_uri(work: shards.Work, splits: Path) -> Iterator[dict[str, Any]]:
    """Give what became of each video, with its uri, for a message."""
    uris = {row["video"]: row["uri"] for batch in work.keys("video", "uri") for row in batch.to_pylist()}
    yield from (row | {"uri": uris[row["video"]]} for row in queries.named(splits, "video"))
