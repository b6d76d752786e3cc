"""What VBench's own code measured, held to the plan: every planned video is in its result, or the result is none.

VBench prints a warning where a video is missing and averages the rest; its command ends with 0 after a crash.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from tasks.evaluation.vbench import results
from tasks.evaluation.vbench.sampled import VIDEOS, records
from tasks.evaluation.vbench.suite import PlannedVideo, planned
from tasks.storage import atomic

COMMIT = "45e79ec14e69a2187202c675d2dbce1a71843d53"
"""Of the VBench that is run."""
FLICKER = "temporal_flickering"
"""Measured on those of its videos in which nothing moves, which VBench copies and numbers anew."""
_KEPT = 5
"""Of the videos of a prompt in which nothing moves."""


def check_videos(folder: Path, dimensions: Collection[str]) -> list[PlannedVideo]:
    """Return the videos that these dimensions are measured on, which are all in `folder`/videos.

    Raises:
        ValueError: one is missing or is not as it was made, or there is another file beside them.
    """
    videos = planned(dimensions=dimensions)
    place = folder / VIDEOS
    there = {path.name for path in place.iterdir()} if place.is_dir() else set()
    if missing := [video.name for video in videos if video.name not in there]:
        raise ValueError(
            f"{len(missing)} of {len(videos)} videos are not in {place}, {missing[0]!r} the first: "
            "stiv vbench sample makes them"
        )
    if other := sorted(name for name in there if not name.endswith(".mp4")):
        raise ValueError(f"{place} holds {other[0]!r}, and VBench takes the suffix of all from any file: take it out")
    return videos


def hash_of(folder: Path, videos: Sequence[PlannedVideo]) -> str:
    """Return a sha256 of the names and bytes of videos.

    Raises:
        ValueError: one is not as `stiv vbench sample` has recorded it.
    """
    recorded: dict[str, set[str]] = {}
    for row in records(folder):
        recorded.setdefault(row["name"], set()).add(row["sha256"])
    digest = sha256()
    for video in videos:
        found = atomic.sha256_file(folder / VIDEOS / video.name)
        if recorded and found not in recorded.get(video.name, set()):
            raise ValueError(f"{folder / VIDEOS / video.name} is not as it was made: stiv vbench sample makes it again")
        digest.update(f"{found} {video.name}\n".encode())
    return digest.hexdigest()


def expected(dimension: str, static: Path) -> set[str]:
    """Return the names of the videos that a result must have.

    Args:
        static: what VBench's filter found of the videos of flicker (JSON); read for that dimension only.

    Raises:
        ValueError: the filter left out a prompt.
    """
    of_dimension = planned(dimensions=[dimension])
    if dimension != FLICKER:
        return {video.name for video in of_dimension}
    prompts = {video.prompt for video in of_dimension}
    kept = json.loads(static.read_text(encoding="utf-8"))
    if left_out := sorted(prompts - kept.keys()):
        raise ValueError(f"VBench's filter says nothing of {len(left_out)} prompts, {left_out[0]!r} the first")
    return {
        f"{prompt}-{number}.mp4" for prompt in prompts for number in range(min(_KEPT, kept[prompt]["static_count"]))
    }


def check(file: Path, dimension: str, names: Collection[str]) -> float:
    """Return the mean of a result that has every planned video once, and no other.

    Raises:
        OSError: there is no result.
        ValueError: it is of other dimensions or videos, or a number of it is none.
    """
    found = results.parse(file)
    if list(found) != [dimension]:
        raise ValueError(f"the result has {', '.join(found)}, and not {dimension} alone")
    mean = results.mean_of(dimension, found[dimension], file)
    counted = Counter(_videos(found[dimension], file))
    if missing := sorted(set(names) - counted.keys()):
        raise ValueError(
            f"{len(missing)} of {len(names)} planned videos are not in the result, {missing[0]!r} the first"
        )
    if other := sorted(counted.keys() - set(names)):
        raise ValueError(f"the result has {len(other)} videos that were not planned, {other[0]!r} the first")
    if twice := [name for name, count in counted.items() if count > 1]:
        raise ValueError(f"the result has {twice[0]!r} {counted[twice[0]]} times")
    return mean


def _videos(value: Any, file: Path) -> list[str]:
    rows = value[1] if isinstance(value, list) and len(value) > 1 and isinstance(value[1], list) else []
    names = []
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("video_path"), str) or "video_results" not in row:
            raise ValueError(f"{file} has a row without video_path or video_results")
        name, result = Path(row["video_path"]).name, row["video_results"]
        if isinstance(result, float) and not math.isfinite(result):
            raise ValueError(f"the result of {name!r} is {result}")
        names.append(name)
    return names
