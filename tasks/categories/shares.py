"""How many captions each category has, with intervals, and how far the shares have drifted from another release's.

Clips of one video share what they are about: videos are the clusters of all intervals (docs/categories.md).
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow.parquet as pq

from tasks.dsg.intervals import Interval, clopper_pearson, korn_graubard
from tasks.storage import queries

FEWEST_VIDEOS = 20
"""Of a release, below which nothing is said of a drift."""
_DRAWS, _SEED, _QUANTILE = 4000, 0, 0.95
_READ = ("clip", "status", "category", "model")


class Shares(NamedTuple):
    """The categories of one release."""

    clips: int
    videos: int
    counts: dict[str, int]
    """Clips of each category."""
    intervals: dict[str, Interval]
    """Of each category's share."""
    models: set[str | None]
    """What decided."""

    @property
    def design_effect(self) -> float:
        """By how much clusters raise the variance of the shares, in their mean (Rao and Scott 1981): 1 or more."""
        parts = [
            (1 - float(one.rate)) * self.clips / max(1.0, float(one.effective))
            for one in self.intervals.values()
            if 0 < float(one.rate) < 1
        ]
        return max(1.0, sum(parts) / (len(parts) - 1)) if len(parts) > 1 else 1.0


def shares(connection: duckdb.DuckDBPyConnection, table: Path, names: Sequence[str]) -> Shares:
    """Return the shares of a table of schema CATEGORIES, over all rows with a category.

    Args:
        names: categories that are told in any case.
    """
    rows = f"(SELECT clip[:20] AS video, category, model FROM {queries.scan([table])} WHERE category IS NOT NULL)"
    found = connection.sql(f"SELECT category, count(*) FROM {rows} GROUP BY category ORDER BY category").fetchall()
    counts = dict.fromkeys(names, 0) | {str(category): int(count) for category, count in found}
    per_video = (
        connection.execute(
            "SELECT count(*) FILTER (category = $1) AS hits, count(*) AS units "
            f"FROM {rows} GROUP BY video ORDER BY video",
            [name],
        ).fetchnumpy()
        for name in counts
    )
    models = {model for (model,) in connection.sql(f"SELECT DISTINCT model FROM {rows}").fetchall()}
    return counted(counts, ((own["hits"], own["units"]) for own in per_video), models)


def counted(
    counts: dict[str, int], per_video: Iterable[tuple[np.ndarray, np.ndarray]], models: set[str | None]
) -> Shares:
    """Return the shares of categories.

    Args:
        counts: clips of each.
        per_video: of each, in their order: its clips and all clips of every video, (videos,).
        models: what decided.
    """
    intervals, videos = {}, 0
    for name, (hits, units) in zip(counts, per_video, strict=True):
        videos, intervals[name] = len(units), _interval(hits, units)
    return Shares(sum(counts.values()), videos, counts, intervals, models)


def _interval(hits: np.ndarray, units: np.ndarray) -> Interval:
    """Return the share of a category with its interval, from counts per video, (videos,).

    Of a category that no clip has, or every clip, the residuals tell nothing of the clusters: no more is independent
    then than videos are.
    """
    found = korn_graubard(hits, units)
    if 0 < float(found.rate) < 1:
        return found
    effective = np.asarray(float(len(units)))
    return Interval(found.rate, *clopper_pearson(found.rate * effective, effective), effective)


def told(found: Shares) -> dict[str, dict[str, Any]]:
    """Return what the report says of each category: clips, share and its 95 % interval."""
    return {
        name: {"clips": found.counts[name]} | {
            key: _number(getattr(one, kind)) for key, kind in (("share", "rate"), ("low", "low"), ("high", "high"))
        }
        for name, one in found.intervals.items()
    }  # fmt: skip


def check_release(release: str) -> Path:
    """Return the table of the earlier release.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no table of categories.
    """
    path = Path(release)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: name a copy of a table of categories, or null (categories.earlier_release)"
        )
    if missing := sorted({*_READ} - {*pq.read_schema(path).names}):
        raise ValueError(
            f"{path} has no column {missing[0]}: it is no table of categories (categories.earlier_release)"
        )
    return path


def drift(now: Shares, before: Shares) -> dict[str, Any]:
    """Return how far the shares of two releases are apart: their total variation distance, and each category's change.

    `changed` is told where the distance is larger than in 95 of 100 pairs of releases of the same shares would be by
    chance, with as many independent clips as these two are worth; *cannot tell* else, and of few videos.

    Args:
        now: with the same categories as `before`; a list that had one of them not has no clip of it.
    """
    p, q = (np.array([one.counts[name] for name in now.counts], float) for one in (now, before))
    few = min(now.videos, before.videos) < FEWEST_VIDEOS
    if not p.sum() or not q.sum() or now.models != before.models:
        why = "another model or encoder decided" if p.sum() and q.sum() else "a release has no category"
        return {"clips": before.clips, "verdict": "cannot tell", "why": why}
    distance = float(np.abs(p / p.sum() - q / q.sum()).sum() / 2)
    chance = _distance_by_chance(now, before, (p + q) / (p + q).sum())
    is_changed = distance > chance and not few
    changes = {name: _change(now.intervals[name], before.intervals[name], few) for name in now.counts}
    return {
        "clips": before.clips,
        "total_variation": distance,
        "by_chance": chance,
        "verdict": "changed" if is_changed else "cannot tell",
        "why": f"a release has fewer than {FEWEST_VIDEOS} videos" if few else None,
        "categories": changes,
    }


def _distance_by_chance(now: Shares, before: Shares, together: np.ndarray) -> float:
    """Return the distance that 95 of 100 pairs of releases keep to that have the same shares, (categories,)."""
    random = np.random.default_rng(_SEED)
    sizes = [max(1, math.floor(one.clips / one.design_effect)) for one in (now, before)]
    drawn, other = (random.multinomial(size, together, _DRAWS) / size for size in sizes)
    return float(np.quantile(np.abs(drawn - other).sum(1) / 2, _QUANTILE))


def _change(now: Interval, before: Interval, few: bool) -> dict[str, Any]:
    """Return the change of a category's share, with the interval of the difference of two independent shares.

    From the intervals of both (Newcombe 1998, Statistics in Medicine 17, 873, method 10).
    """
    p, q = float(now.rate), float(before.rate)
    low = p - q - math.hypot(p - float(now.low), float(before.high) - q)
    high = p - q + math.hypot(float(now.high) - p, q - float(before.low))
    verdict = "cannot tell" if few or low <= 0 <= high else "more" if p > q else "fewer"
    return {"before": q, "now": p, "change": p - q, "low": low, "high": high, "verdict": verdict}


def _number(value: np.ndarray) -> float | None:
    return float(value) if math.isfinite(value) else None
