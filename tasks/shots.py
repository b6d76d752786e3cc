"""Stage shots: cut every video into shots, and measure them, behind the fence (by `tasks/cuts.py`).

No video is cut or encoded again: a shot is a row with two timestamps, and some small pictures.
"""

import base64
import logging
from pathlib import Path
from typing import Any

from prefect import task

from tasks import manifest, resume, shards, sources
from tasks.fence import Fence
from tasks.settings import ShotSettings

log = logging.getLogger(__name__)

_RULES = (
    "content_threshold",
    "fade_threshold",
    "min_seconds",
    "max_seconds",
    "analysis_pixels",
    "motion_every",
    "stills",
)


def split_videos(
    source: str, videos: list[dict], settings: ShotSettings, fence: Fence, cache: Path
) -> tuple[list[dict], list[dict], list[dict]]:
    """Cut some videos into shots.

    Returns:
        Rows of manifest.SPLITS (one per video), of SHOTS, and of STILLS (one per shot that is ok), in order.
    """
    asked, refused = [], {}
    rules = {name: getattr(settings, name) for name in _RULES}
    for video in videos:
        path, reason = _unchanged(source, video, cache)
        if reason:
            refused[video["video"]] = {"status": "failed", "reason": reason}
        else:
            claimed = int(video["seconds"] * video["fps"])
            asked.append((video["video"], {"path": str(path), "claimed_frames": claimed, **rules}))
    found = fence.map("split", [arguments for _, arguments in asked])
    results = refused | {name: result for (name, _), result in zip(asked, found, strict=True)}

    splits, shots, stills = [], [], []
    for video in videos:
        result = results[video["video"]]
        parts = result.get("shots", [])
        splits.append(_split_row(video, result))
        rows = [_shot_row(video, part) for part in parts]
        shots += rows
        stills += [
            {"shot": row["shot"], "stills": [base64.b64decode(still) for still in part["stills"]]}
            for row, part in zip(rows, parts, strict=True)
            if row["status"] == "ok"
        ]
    return splits, shots, stills


def _unchanged(source: str, video: dict, cache: Path) -> tuple[Path | None, str | None]:
    """Return the video's file, or the reason code if it is not the one that was probed."""
    try:
        path = sources.local_file(source, video["uri"], video["video"], cache)
        return (path, None) if resume.sha256_file(path) == video["video"] else (None, "changed_since_probe")
    except FileNotFoundError:
        return None, "not_found"
    except PermissionError:
        return None, "not_permitted"
    except ValueError:
        return None, "changed_since_probe"


def _split_row(video: dict, result: dict[str, Any]) -> dict[str, Any]:
    parts = result.get("shots", [])
    frames = result.get("frames")
    assert not parts or sum(part["frames"] for part in parts) == frames, f"{video['uri']}: shots do not cover it"
    return {
        "video": video["video"],
        "status": result["status"],
        "reason": result["reason"],
        "frames": frames,
        "shots": len(parts),
    }


def _shot_row(video: dict, part: dict[str, Any]) -> dict[str, Any]:
    return {
        "shot": manifest.shot_id(video["video"], part["start_pts"], part["end_pts"]),
        **{name: video[name] for name in ("video", "uri", "width", "height", "caption")},
        **{name: value for name, value in part.items() if name != "stills"},
    }


@task(task_run_name="split {shard.path.stem}", retries=2, retry_delay_seconds=2)
def split_shard(shard: shards.Shard, source: str, settings: ShotSettings, fence: Fence, cache: Path) -> None:
    """Cut one shard of videos into shots."""
    splits, shots, stills = split_videos(source, shard.given, settings, fence, cache)
    for name, rows, schema in (
        (manifest.SHOT_TABLE, shots, manifest.SHOTS),
        (manifest.STILL_TABLE, stills, manifest.STILLS),
    ):
        with resume.whole(_beside(shard.path, name)) as aside:
            manifest.write_rows(aside, rows, schema)
    shard.write(splits, manifest.SPLITS)  # last: with it, the shard is done


def _beside(shard: Path, name: str) -> Path:
    return shard.with_name(f"{shard.stem}.{name}")


def join_shots(
    work: Path, parts: list[shards.Shard], settings: ShotSettings, out: Path, report: Path
) -> tuple[manifest.Account, manifest.Account]:
    """Put the shards' tables together in `out`, in the order of the videos.

    Returns:
        The accounts of the videos and of their shots.

    Raises:
        ValueError: too many videos failed, or no shot is usable.
    """
    product = work / "product"
    product.mkdir(exist_ok=True)
    shards.join([part.path for part in parts], product / manifest.SPLIT_TABLE, manifest.SPLITS)
    for name, schema in ((manifest.SHOT_TABLE, manifest.SHOTS), (manifest.STILL_TABLE, manifest.STILLS)):
        shards.join([_beside(part.path, name) for part in parts], product / name, schema)
    splits = manifest.read_rows(product / manifest.SPLIT_TABLE, manifest.SPLITS)
    shots = manifest.read_rows(product / manifest.SHOT_TABLE, manifest.SHOTS)
    given = [video["video"] for part in parts for video in part.given]
    cut = [row["video"] for row in splits for _ in range(row["shots"])]
    videos = manifest.settle("videos", given, splits, "video")
    assert sorted(cut) == sorted(row["video"] for row in shots), "a video's shots are not those that it was cut into"
    accounts = videos, manifest.settle("shots", {row["shot"] for row in shots}, shots, "shot")
    manifest.check_failures(videos, settings.max_failed_fraction, "shots.max_failed_fraction")
    manifest.check_failures(accounts[1], 0.0, "shots.max_failed_fraction")
    manifest.write_report(report, *accounts)
    resume.finish(product, out)
    resume.discard_work(out)
    return accounts
