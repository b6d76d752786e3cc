"""The verdict on every scored shot, in DuckDB: one definition for stage clips, which writes it, and for `stiv funnel`.

Which thresholds there are and their order come from tasks/clips/thresholds.py.
"""

from pathlib import Path

import duckdb

from tasks.clips import thresholds
from tasks.clips.settings import BestSettings, ClipSettings
from tasks.storage import queries, tables

MICROSECONDS = "coalesce(floor(seconds * 1e6 + 0.5), 0)::BIGINT"
"""How long a shot is, in whole microseconds: the sum of them depends on no order."""
STATUS = f"""CASE WHEN reason IS NULL THEN 'ok' WHEN reason = '{thresholds.SCORE_MISSING}' THEN 'failed'
    ELSE 'rejected' END"""
"""The status of a shot that was ok before, by its reason."""
# of integers as exact as they are below 2^53, and rounded once, like Python's division of fractions
_SECONDS = """
    ((end_pts::HUGEINT - start_pts) * CAST(split_part(time_base, '/', 1) AS BIGINT))::DOUBLE
    / CAST(coalesce(nullif(split_part(time_base, '/', 2), ''), '1') AS BIGINT)::DOUBLE"""


def judge(connection: duckdb.DuckDBPyConnection, scores: Path, settings: ClipSettings) -> None:
    """Make the view `judged`, every scored shot by itself, and the table `later`, what others cost it.

    `judged` has the columns of the table of scores, but for `reason` that of the first threshold that the shot misses,
    null for none; further `row`, its place in the file, and `seconds`. `later` has `row`, `reason` and `duplicate_of`
    of shots that pass by themselves: near-duplicates are looked for among those, so that none that is rejected costs
    another its place; the best of the rest are chosen last.

    Raises:
        FileNotFoundError: there is no such table, or an earlier release is gone.
        ValueError: a table has other columns, or near-duplicates cannot be compared.
    """
    judge_alone(connection, scores, settings)
    connection.execute("CREATE TEMP TABLE later (row BIGINT, reason VARCHAR, duplicate_of VARCHAR)")
    if thresholds.duplicate_columns(settings):
        from tasks.clips import duplicates  # numpy and pyarrow.compute: as long as a quarter of a replay

        duplicates.reject(connection, settings)
    if settings.best is not None:
        _keep_best(connection, settings.best)


def judge_alone(connection: duckdb.DuckDBPyConnection, scores: Path, settings: ClipSettings) -> None:
    """Make the view `judged` and no more.

    Raises:
        FileNotFoundError, ValueError: there is no such table, or it has other columns.
    """
    check_scores(scores)
    connection.execute(
        f"""CREATE TEMP VIEW judged AS SELECT *, {_reason(thresholds.rules(settings))} AS reason
            FROM (SELECT * EXCLUDE (reason, file_row_number), file_row_number AS row, {_SECONDS} AS seconds
                  FROM {queries.scan([scores], numbered=True)} WHERE status = 'ok')"""
    )


def check_scores(table: Path) -> None:
    """Check that the table of scores is there and has its columns.

    Raises:
        FileNotFoundError, ValueError: it is not, or has others.
    """
    if not table.is_file():
        raise FileNotFoundError(f"{table} does not exist: run the stage that makes it (dvc repro, or stiv pipeline)")
    tables.check_columns(table, tables.SCORES)


def _reason(wanted: thresholds.Rules) -> str:
    """Return `thresholds.judge_shot` in SQL: the reason, null for a clip."""
    missing = [f"{name} IS NULL" for name in ("orientation", *wanted.duplicate_columns)]
    missing += [f"NOT coalesce(isfinite({score}::DOUBLE), false)" for score in wanted.scores]
    lines = [f"WHEN {' OR '.join(missing)} THEN '{thresholds.SCORE_MISSING}'"]
    for limit in wanted.limits:
        outside = f"{'<' if limit.is_min else '>'} {queries.double(limit.value)}"
        lines.append(f"WHEN {limit.score}::DOUBLE {outside} THEN '{limit.reason}'")
    orientations = ", ".join(f"'{name}'" for name in wanted.orientations) or "NULL"
    lines.append(f"WHEN (orientation IN ({orientations})) IS NOT TRUE THEN '{thresholds.ORIENTATION}'")
    return f"CASE {' '.join(lines)} END"


def _keep_best(connection: duckdb.DuckDBPyConnection, best: BestSettings) -> None:
    """Reject, of the shots that are left, all but those of the highest score; of equals, the first by name stays."""
    connection.execute(
        f"""INSERT INTO later SELECT row, '{thresholds.NOT_BEST}', NULL FROM (
                SELECT row FROM judged ANTI JOIN later USING (row) WHERE reason IS NULL
                ORDER BY {best.by} DESC, clip, row OFFSET {best.clips})"""
    )
