"""Stage shots: cut every video into shots, and measure them, in the sandbox (by `tasks/decoding/cuts.py`).

No video is cut or encoded again: a shot is a row with two timestamps, and some small pictures.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.decoding.limits import MIN_DECODED
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import DECIDE_NOTHING, SandboxSettings
from tasks.storage import atomic, reuse, shards, tables
from tasks.storage.stage import Joined, Stage
from tasks.videos import shot_rules, sources
from tasks.videos.settings import ShotSettings

log = logging.getLogger(__name__)

_ALL_SECONDS = 1e6  # beyond the end of any video
_STILL_ROWS = 64  # of a group: the stage scores reads pieces of the table
_OF_VIDEO = ("video", "uri", "repairs", "width", "height", "caption", "licence", "source_url")


def split_videos(
    source: str, videos: list[dict[str, Any]], settings: ShotSettings, sandbox: Sandbox, cache: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Cut some videos into shots.

    Returns:
        Rows of tables.SPLITS (one per video), of SHOTS, and of STILLS (one per shot that is ok), in order.
    """
    asked: list[tuple[str, dict[str, Any]]] = []
    results: dict[str, dict[str, Any]] = {}
    rules = shot_rules.rules_of(settings)
    for video in videos:
        path, reason = _unchanged(source, video, cache)
        if reason:
            results[video["video"]] = {"status": "failed", "reason": reason}
        else:
            of_video = {"path": str(path), "fps": video["fps"], "repairs": video["repairs"] or []}
            asked += [(video["video"], {**of_video, **part, **rules}) for part in _parts(video, settings)]
    found = sandbox.map("split", [arguments for _, arguments in asked])
    by_video: dict[str, list[dict[str, Any]]] = {}
    for (name, _), result in zip(asked, found, strict=True):
        by_video.setdefault(name, []).append(result)
    results |= {row["video"]: _merged(by_video[row["video"]], row) for row in videos if row["video"] in by_video}

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


def _unchanged(source: str, video: dict[str, Any], cache: Path) -> tuple[Path | None, str | None]:
    """Return the video's file, or the reason code if it is not the one that was probed."""
    try:
        path = sources.local_file(source, video["uri"], video["video"], cache)
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


def split_shard(shard: shards.Shard, source: str, settings: ShotSettings, sandbox: Sandbox, cache: Path) -> None:
    """Cut one shard of videos into shots."""
    splits, shots, stills = split_videos(source, shard.given, settings, sandbox, cache)
    for name, rows, schema in (
        (tables.SHOT_TABLE, shots, tables.SHOTS),
        (tables.STILL_TABLE, stills, tables.STILLS),
    ):
        with atomic.atomic_write(_beside(shard.path, name)) as tmp_path:
            tables.write_rows(tmp_path, rows, schema)
    shard.write(splits, tables.SPLITS)  # last: with it, the shard is done


def load_reusable(reusable: Path, work: Path, videos: list[dict[str, Any]]) -> shards.Shard:
    """Make a shard of the videos that an earlier run has split, unless they failed: those are tried again.

    Args:
        reusable: folder of the earlier run's tables.
        videos: what is given now, sorted by sha256, as the earlier tables are.
    """
    found = {
        row["video"]: row
        for row in _read_reusable(reusable, tables.SPLIT_TABLE, tables.SPLITS)
        if row["status"] != "failed"
    }
    given = {video["video"]: video for video in videos if video["video"] in found}
    reused = shards.reused(work, list(given.values()))
    if not given or reused.is_done:
        return reused
    shots = (
        row | {name: given[row["video"]][name] for name in _OF_VIDEO}
        for row in _read_reusable(reusable, tables.SHOT_TABLE, tables.SHOTS)
        if row["video"] in given
    )
    short = {_short(video) for video in given}
    stills = (
        row for row in _read_reusable(reusable, tables.STILL_TABLE, tables.STILLS) if _short(row["clip"]) in short
    )
    with atomic.atomic_write(_beside(reused.path, tables.SHOT_TABLE)) as tmp_path:
        shards.write(tmp_path, shots, tables.SHOTS)
    with atomic.atomic_write(_beside(reused.path, tables.STILL_TABLE)) as tmp_path:
        shards.write(tmp_path, stills, tables.STILLS, _STILL_ROWS)
    reused.write([found[video] for video in given], tables.SPLITS)
    return reused


def _short(name: str) -> str:
    """Return of a shot's name, or a video's, what says which video it is."""
    return tables.clip_id(name, 0, 0).partition("-")[0]


def _read_reusable(reusable: Path, name: str, schema: pa.Schema) -> Iterable[dict[str, Any]]:
    return shards.rows(reusable / name, schema) if (reusable / name).exists() else ()


def _beside(shard: Path, name: str) -> Path:
    return shard.with_name(f"{shard.stem}.{name}")


class Shots(Stage[dict[str, Any]]):
    """A row of tables.SPLITS per video, of SHOTS and of STILLS per shot, in the order of the videos' sha256.

    Args:
        source: folder, bucket or list.
        videos: folder of stage videos.
        open_sandbox: gives the sandbox that files are opened in.
    """

    name, verb, unit = "shots", "split", "hours"
    retries, retry_delay_seconds = 2, 2

    def __init__(
        self,
        source: str,
        videos: Path,
        settings: ShotSettings,
        sandbox: SandboxSettings,
        open_sandbox: Callable[[SandboxSettings], AbstractContextManager[Sandbox]] = Sandbox,
    ) -> None:
        self.table = videos / tables.VIDEO_TABLE
        self.source, self.settings, self.sandbox, self.open_sandbox = source, settings, sandbox, open_sandbox

    def given(self) -> list[dict[str, Any]]:
        return sorted(tables.ok(tables.read_rows(self.table, tables.VIDEOS)), key=lambda row: row["video"])

    def decides(self) -> dict[str, Any]:
        return {
            "shots": self.settings.model_dump(exclude={"shard_seconds", "max_failed_fraction"}),
            "made_by": shot_rules.made_by(self.settings),
            "sandbox": self.sandbox.model_dump(exclude=DECIDE_NOTHING),
        }

    def inputs(self, given: list[dict[str, Any]]) -> dict[str, Any]:
        made_from = {"source": self.source, "videos": atomic.sha256_file(self.table)}
        return made_from | {"shard_seconds": self.settings.shard_seconds}

    def shard_size(self) -> float:
        return self.settings.shard_seconds

    def weight(self, item: dict[str, Any]) -> float:
        return float(item["seconds"])

    def amount(self, item: dict[str, Any]) -> float:
        return float(item["seconds"]) / 3600

    def load_reusable(self, reusable: Path, work: Path, given: list[dict[str, Any]]) -> shards.Shard:
        return load_reusable(reusable, work, given)

    def save_reusable(self, given: list[dict[str, Any]], out: Path, reusable: Path) -> None:
        reuse.save_reusable(
            [out / name for name in (tables.SPLIT_TABLE, tables.SHOT_TABLE, tables.STILL_TABLE)], reusable
        )

    @contextmanager
    def worker(self, product: Path, reusable: Path) -> Iterator[Callable[[shards.Shard], None]]:
        with self.open_sandbox(self.sandbox) as opened:
            yield partial(split_shard, source=self.source, settings=self.settings, sandbox=opened, cache=sources.CACHE)

    def join(self, parts: list[shards.Shard], product: Path) -> Joined:
        paths = [part.path for part in parts]
        of_shots, of_stills = (
            [_beside(path, name) for path in paths] for name in (tables.SHOT_TABLE, tables.STILL_TABLE)
        )
        shards.join(paths, product / tables.SPLIT_TABLE, tables.SPLITS, lambda row: row["video"])
        shards.join(of_shots, product / tables.SHOT_TABLE, tables.SHOTS, lambda row: row["video"])
        stills = product / tables.STILL_TABLE
        shards.join(of_stills, stills, tables.STILLS, lambda row: _short(row["clip"]), _STILL_ROWS)
        given = [video["video"] for part in parts for video in part.given]
        splits = tables.read_rows(product / tables.SPLIT_TABLE, tables.SPLITS)
        shots = tables.read_rows(product / tables.SHOT_TABLE, tables.SHOTS)
        cut = [row["video"] for row in splits for _ in range(row["shots"])]
        videos = tables.reconcile("videos", given, splits, "video")
        assert sorted(cut) == sorted(row["video"] for row in shots), (
            "a video's shots are not those that it was cut into"
        )
        accounts = videos, tables.reconcile("shots", {row["clip"] for row in shots}, shots, "clip")
        uris = {video["video"]: video["uri"] for part in parts for video in part.given}
        named = [row | {"uri": uris[row["video"]]} for row in splits]
        tables.check_failures(videos, self.settings.max_failed_fraction, "shots.max_failed_fraction", named, "uri")
        tables.check_failures(accounts[1], 0.0, "shots.max_failed_fraction")
        return Joined(accounts, {"made_by": shot_rules.made_by(self.settings)})
