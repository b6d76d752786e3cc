"""Replay thresholds over the table of scores in DuckDB: what they keep, lose and shift. Nothing is written.

Which thresholds there are, their order, and the steps of the funnel come from tasks/clips/thresholds.py, as in stage
clips.
"""

from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from tasks.clips import thresholds
from tasks.clips.settings import ClipSettings
from tasks.clips.thresholds import Limit, Share
from tasks.storage import tables

CATEGORIES = {
    "orientation": "orientation",
    "main colour": "colours[1]",
    "caption": "CASE WHEN caption IS NULL THEN 'without' ELSE 'with' END",
    "begins with": "transition",
}
"""Kinds of shots whose shares are compared before and after: name, and what it is in SQL."""
_SECONDS = """
    ((end_pts - start_pts) * CAST(split_part(time_base, '/', 1) AS BIGINT))::DOUBLE
    / CAST(coalesce(nullif(split_part(time_base, '/', 2), ''), '1') AS BIGINT)::DOUBLE"""


class Shift(NamedTuple):
    """How common one kind of shot is among those scored, and among the clips: shares of their number."""

    category: str
    value: str
    scored: float
    kept: float


class Replay(NamedTuple):
    """What a selection would come to."""

    funnel: list[dict[str, Any]]
    """As stage clips reports it; the step of near-duplicates is missing when they were not looked for."""
    lost: dict[str | None, Share]
    """By reason; those kept have none."""
    shift: list[Shift]


class Border(NamedTuple):
    """The shots nearest one threshold on both sides: name and score, the nearest first."""

    limit: Limit
    kept: list[tuple[str, float]]
    lost: list[tuple[str, float]]
    """Those that every threshold before kept."""


def replay(scores: Path, settings: ClipSettings) -> Replay:
    """Return what `settings` would make of the scored shots.

    Looking for near-duplicates takes a minute for 1 million hashes, and far longer for embeddings; all else is one pass
    over the columns needed.

    Args:
        scores: stage scores' table.
        settings: without `duplicate_bits` and `duplicate_similarity`, near-duplicates are not looked for.

    Raises:
        FileNotFoundError, ValueError: there is no such table, or it has other columns, or an earlier release has; or
            embeddings are of several encoders.
    """
    with _connect(scores, settings) as base:
        _reject_later(base, settings)
        groups = base.sql(
            f"""SELECT coalesce(judged.reason, later.reason) AS reason,
                    {", ".join(f"coalesce({value}, 'unknown')" for value in CATEGORIES.values())},
                    count(*), sum(microseconds)::BIGINT
                FROM judged LEFT JOIN later USING (row) GROUP BY ALL ORDER BY ALL"""
        ).fetchall()
    lost: dict[str | None, Share] = {}
    for reason, *_, clips, microseconds in groups:
        before = lost.get(reason, Share(0, 0))
        lost[reason] = Share(before.clips + clips, before.microseconds + microseconds)
    return Replay(thresholds.funnel(lost, settings), lost, _shift(groups))


def borders(scores: Path, settings: ClipSettings, count: int) -> list[Border]:
    """Return, for each threshold, so many shots on either side of it.

    Raises:
        FileNotFoundError, ValueError: as `replay`.
    """
    wanted = thresholds.rules(settings)
    with _connect(scores, settings) as base:
        own = ", ".join(wanted.scores)
        base.execute(f"CREATE TEMP TABLE measured AS SELECT row, reason, {own} FROM judged")
        return [_border(base, limit, count) for limit in wanted.limits]


def stills(table: Path, shots: list[str]) -> dict[str, bytes]:
    """Return the picture (JPEG) from the middle of each of these shots.

    Raises:
        FileNotFoundError, ValueError: there is no such table of stills, or it lacks one of the shots.
    """
    _check_columns(table, tables.STILLS)
    query = "SELECT clip, stills[len(stills) // 2 + 1] FROM read_parquet($1) WHERE clip IN (SELECT unnest($2))"
    with duckdb.connect() as base:
        found = dict(base.execute(query, [str(table), shots]).fetchall())
    if missing := sorted(set(shots) - found.keys()):
        raise ValueError(f"{table} has no stills of {missing[:3]}: it belongs to other scores; run stage shots")
    return found


def _connect(scores: Path, settings: ClipSettings) -> duckdb.DuckDBPyConnection:
    """Open a base in memory with the view `judged`: every scored shot, and why it is no clip, by itself."""
    _check_columns(scores, tables.SCORES)
    base = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    path = str(scores).replace("'", "''")
    base.execute(
        f"""CREATE TEMP VIEW judged AS
            SELECT *, {_reason(thresholds.rules(settings))} AS reason,
                coalesce(floor(seconds * 1e6 + 0.5), 0)::BIGINT AS microseconds
            FROM (SELECT * EXCLUDE (reason), file_row_number AS row, {_SECONDS} AS seconds
                  FROM read_parquet('{path}', file_row_number = true) WHERE status = 'ok')"""
    )
    return base


def _check_columns(table: Path, schema: pa.Schema) -> None:
    if not table.is_file():
        raise FileNotFoundError(f"{table} does not exist: run the stage that makes it (dvc repro, or stiv pipeline)")
    tables.check_columns(table, schema)


def _reason(wanted: thresholds.Rules) -> str:
    """Return `thresholds.judge_shot` in SQL: the reason, null for a clip."""
    missing = [f"{name} IS NULL" for name in ("orientation", *wanted.compared)]
    missing += [f"NOT coalesce(isfinite({score}::DOUBLE), false)" for score in wanted.scores]
    lines = [f"WHEN {' OR '.join(missing)} THEN '{thresholds.SCORE_MISSING}'"]
    for limit in wanted.limits:
        # through text: a literal with a point would be a DECIMAL, whose nearest double may be another
        value = f"CAST('{limit.value!r}' AS DOUBLE)"
        lines.append(f"WHEN {limit.score}::DOUBLE {'<' if limit.is_min else '>'} {value} THEN '{limit.reason}'")
    orientations = ", ".join(f"'{name}'" for name in wanted.orientations) or "NULL"
    lines.append(f"WHEN (orientation IN ({orientations})) IS NOT TRUE THEN '{thresholds.ORIENTATION}'")
    return f"CASE {' '.join(lines)} END"


def _reject_later(base: duckdb.DuckDBPyConnection, settings: ClipSettings) -> None:
    """Make the table `later`: shots that pass by themselves, and are no clips because of others."""
    base.execute("CREATE TEMP TABLE later (row BIGINT, reason VARCHAR)")
    compared = thresholds.compared(settings)
    if not compared and settings.best is None:
        return
    from tasks.clips import duplicates, releases  # pyarrow.compute: as long as a quarter of the replay

    by = settings.best.by if settings.best else "quality"
    columns = ", ".join(("clip", *duplicates.MERITS, *compared))
    passed = base.sql(f"SELECT row, {by} AS best_by, {columns} FROM judged WHERE reason IS NULL").to_arrow_table()
    names = passed["clip"].to_pylist()
    reasons: dict[str, str] = {}
    if compared:
        present = base.sql("SELECT clip FROM judged").to_arrow_table()["clip"].to_pylist()
        earlier = releases.compared(settings.earlier_releases, present, compared)
        near = duplicates.find_duplicates(passed, settings.duplicate_bits, settings.duplicate_similarity, earlier)
        reasons |= dict.fromkeys(near, thresholds.NEAR_DUPLICATE)
    if settings.best is not None:
        values = dict(zip(names, passed["best_by"].to_pylist(), strict=True))
        left = {name: value for name, value in values.items() if name not in reasons}
        reasons |= dict.fromkeys(thresholds.not_best(left, settings.best.clips), thresholds.NOT_BEST)
    rows = [row for row, name in zip(passed["row"].to_pylist(), names, strict=True) if name in reasons]
    whys = [reasons[name] for name in names if name in reasons]
    base.execute("INSERT INTO later SELECT unnest($1::BIGINT[]), unnest($2::VARCHAR[])", [rows, whys])


def _shift(groups: list[tuple[Any, ...]]) -> list[Shift]:
    """Return the shares of every category, the most common first."""
    result = []
    for place, category in enumerate(CATEGORIES, 1):
        scored: dict[str, int] = {}
        kept: dict[str, int] = {}
        for group in groups:
            clips = group[-2]
            scored[group[place]] = scored.get(group[place], 0) + clips
            kept[group[place]] = kept.get(group[place], 0) + clips * (group[0] is None)
        all_scored, all_kept = max(1, sum(scored.values())), max(1, sum(kept.values()))
        order = sorted(scored, key=lambda value: (-scored[value], value))
        result += [Shift(category, value, scored[value] / all_scored, kept[value] / all_kept) for value in order]
    return result


def _border(base: duckdb.DuckDBPyConnection, limit: Limit, count: int) -> Border:
    sides = []
    for where, is_up in (("reason IS NULL", limit.is_min), (f"reason = '{limit.reason}'", not limit.is_min)):
        query = f"""SELECT judged.clip, near.score FROM judged JOIN (
                        SELECT row, {limit.score}::DOUBLE AS score FROM measured WHERE {where}
                        ORDER BY score {"ASC" if is_up else "DESC"}, row LIMIT {count}) AS near USING (row)
                    ORDER BY abs(near.score - CAST('{limit.value!r}' AS DOUBLE)), judged.clip"""
        sides.append(base.sql(query).fetchall())
    return Border(limit, *sides)
