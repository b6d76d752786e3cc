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
from tasks.clips.thresholds import Amount, Limit
from tasks.storage import stills, tables

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
    """How common one kind of shot is before and after the selection."""

    category: str
    value: str
    scored: float
    """Share of all scored shots, 0 to 1."""
    kept: float
    """Share of the clips, 0 to 1."""


class Replay(NamedTuple):
    """What a selection would give."""

    funnel: list[dict[str, Any]]
    """As stage clips reports it; the step of near-duplicates is missing when they were not looked for."""
    lost: dict[str | None, Amount]
    """The shots by reason; those that would be clips have None."""
    shift: list[Shift]


class BorderlineShots(NamedTuple):
    """The shots nearest one threshold on both sides: id and score of each, the nearest first."""

    limit: Limit
    kept: list[tuple[str, float]]
    """Shots that would be clips."""
    lost: list[tuple[str, float]]
    """Shots that this threshold rejects, and none before it."""


def replay(scores: Path, settings: ClipSettings) -> Replay:
    """Return what a selection with `settings` would give, without selecting.

    Looking for near-duplicates takes a minute for 1 million hashes, and far longer for embeddings; all else is one pass
    over the columns needed.

    Args:
        scores: file with the table of scores (schema SCORES).
        settings: thresholds; without `duplicate_bits` and `duplicate_similarity`, near-duplicates are not looked for.

    Raises:
        FileNotFoundError: there is no such table, or an earlier release is gone.
        ValueError: a table has other columns, or embeddings are of several encoders.
    """
    with _connect(scores, settings) as connection:
        _reject_later(connection, settings)
        groups = connection.sql(
            f"""SELECT coalesce(judged.reason, later.reason) AS reason,
                    {", ".join(f"coalesce({value}, 'unknown')" for value in CATEGORIES.values())},
                    count(*), sum(microseconds)::BIGINT
                FROM judged LEFT JOIN later USING (row) GROUP BY ALL ORDER BY ALL"""
        ).fetchall()
    lost: dict[str | None, Amount] = {}
    for reason, *_, clips, microseconds in groups:
        before = lost.get(reason, Amount(0, 0))
        lost[reason] = Amount(before.clips + clips, before.microseconds + microseconds)
    return Replay(thresholds.funnel(lost, settings), lost, _shift(groups))


def borderline_shots(scores: Path, settings: ClipSettings, count: int) -> list[BorderlineShots]:
    """Return, for each threshold, up to `count` shots on either side of it.

    Args:
        scores: file with the table of scores (schema SCORES).

    Raises:
        FileNotFoundError, ValueError: as `replay`.
    """
    wanted = thresholds.rules(settings)
    with _connect(scores, settings) as connection:
        own = ", ".join(wanted.scores)
        connection.execute(f"CREATE TEMP TABLE measured AS SELECT row, reason, {own} FROM judged")
        return [_borderline_shots(connection, limit, count) for limit in wanted.limits]


def middle_stills(folder: Path, shots: list[str]) -> dict[str, bytes]:
    """Return the still from the middle of each of these shots, JPEG bytes by clip id.

    Args:
        folder: what stage shots made.

    Raises:
        FileNotFoundError, ValueError: there are no stills, or none of one of the shots.
    """
    return {shot: pictures[len(pictures) // 2] for shot, pictures in stills.read(folder, shots).items()}


def _connect(scores: Path, settings: ClipSettings) -> duckdb.DuckDBPyConnection:
    """Open a database in memory with the view `judged`: every scored shot, and why it is no clip, by itself."""
    _check_columns(scores, tables.SCORES)
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    path = str(scores).replace("'", "''")
    connection.execute(
        f"""CREATE TEMP VIEW judged AS
            SELECT *, {_reason(thresholds.rules(settings))} AS reason,
                coalesce(floor(seconds * 1e6 + 0.5), 0)::BIGINT AS microseconds
            FROM (SELECT * EXCLUDE (reason), file_row_number AS row, {_SECONDS} AS seconds
                  FROM read_parquet('{path}', file_row_number = true) WHERE status = 'ok')"""
    )
    return connection


def _check_columns(table: Path, schema: pa.Schema) -> None:
    if not table.is_file():
        raise FileNotFoundError(f"{table} does not exist: run the stage that makes it (dvc repro, or stiv pipeline)")
    tables.check_columns(table, schema)


def _reason(wanted: thresholds.Rules) -> str:
    """Return `thresholds.judge_shot` in SQL: the reason, null for a clip."""
    missing = [f"{name} IS NULL" for name in ("orientation", *wanted.duplicate_columns)]
    missing += [f"NOT coalesce(isfinite({score}::DOUBLE), false)" for score in wanted.scores]
    lines = [f"WHEN {' OR '.join(missing)} THEN '{thresholds.SCORE_MISSING}'"]
    for limit in wanted.limits:
        # through text: a literal with a point would be a DECIMAL, whose nearest double may be another
        value = f"CAST('{limit.value!r}' AS DOUBLE)"
        lines.append(f"WHEN {limit.score}::DOUBLE {'<' if limit.is_min else '>'} {value} THEN '{limit.reason}'")
    orientations = ", ".join(f"'{name}'" for name in wanted.orientations) or "NULL"
    lines.append(f"WHEN (orientation IN ({orientations})) IS NOT TRUE THEN '{thresholds.ORIENTATION}'")
    return f"CASE {' '.join(lines)} END"


def _reject_later(connection: duckdb.DuckDBPyConnection, settings: ClipSettings) -> None:
    """Make the table `later`: shots that pass by themselves, and are rejected because of others."""
    connection.execute("CREATE TEMP TABLE later (row BIGINT, reason VARCHAR)")
    columns_compared = thresholds.duplicate_columns(settings)
    if not columns_compared and settings.best is None:
        return
    from tasks.clips import duplicates, releases  # pyarrow.compute: as long as a quarter of the replay

    by = settings.best.by if settings.best else "quality"
    columns = ", ".join(("clip", *duplicates.MERITS, *columns_compared))
    passed = connection.sql(f"SELECT row, {by} AS best_by, {columns} FROM judged WHERE reason IS NULL").to_arrow_table()
    names = passed["clip"].to_pylist()
    reasons: dict[str, str] = {}
    if columns_compared:
        present = connection.sql("SELECT clip FROM judged").to_arrow_table()["clip"].to_pylist()
        earlier = releases.released_clips(settings.earlier_releases, present, columns_compared)
        near = duplicates.find_duplicates(passed, settings.duplicate_bits, settings.duplicate_similarity, earlier)
        reasons |= dict.fromkeys(near, thresholds.NEAR_DUPLICATE)
    if settings.best is not None:
        values = dict(zip(names, passed["best_by"].to_pylist(), strict=True))
        left = {name: value for name, value in values.items() if name not in reasons}
        reasons |= dict.fromkeys(thresholds.not_best(left, settings.best.clips), thresholds.NOT_BEST)
    rows = [row for row, name in zip(passed["row"].to_pylist(), names, strict=True) if name in reasons]
    codes = [reasons[name] for name in names if name in reasons]
    connection.execute("INSERT INTO later SELECT unnest($1::BIGINT[]), unnest($2::VARCHAR[])", [rows, codes])


def _shift(groups: list[tuple[Any, ...]]) -> list[Shift]:
    """Return the shares of every kind of shot, by category, the most common first."""
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


def _borderline_shots(connection: duckdb.DuckDBPyConnection, limit: Limit, count: int) -> BorderlineShots:
    sides = []
    for where, is_up in (("reason IS NULL", limit.is_min), (f"reason = '{limit.reason}'", not limit.is_min)):
        query = f"""SELECT judged.clip, near.score FROM judged JOIN (
                        SELECT row, {limit.score}::DOUBLE AS score FROM measured WHERE {where}
                        ORDER BY score {"ASC" if is_up else "DESC"}, row LIMIT {count}) AS near USING (row)
                    ORDER BY abs(near.score - CAST('{limit.value!r}' AS DOUBLE)), judged.clip"""
        sides.append(connection.sql(query).fetchall())
    return BorderlineShots(limit, *sides)
