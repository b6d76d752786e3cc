"""Earlier releases: tables of clips that were handed on before, and how far this one has drifted from the last.

A release is a copy of a table of clips (`data/clips/clips.parquet`), named in `clips.earlier_releases`.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq

from tasks.clips.settings import ClipSettings
from tasks.clips.thresholds import ranges
from tasks.storage import queries, tables

_BATCH_ROWS = 65_536  # read at once


def check(release: str, columns: Sequence[str]) -> Path:
    """Return the file of one earlier release, after checking that it has these columns, and `status`.

    Raises:
        FileNotFoundError: no such table.
        ValueError: it lacks a column.
    """
    path = Path(release)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: name a table of clips, or none (clips.earlier_releases)")
    found = pq.read_schema(path).names
    tables.refuse_renamed(path, found, columns, "rename it there, or leave that table out of clips.earlier_releases")
    if missing := sorted({"status", *columns} - set(found)):
        raise ValueError(f"{path} has no column {missing}: select that release again, or leave it out of "
                         "clips.earlier_releases")  # fmt: skip
    return path


def open_released(connection: duckdb.DuckDBPyConnection, releases: Sequence[str], columns: Sequence[str]) -> None:
    """Make the view `released`: the clips of earlier releases, without the shots that are judged again today.

    Those have only today's verdict: a shot that is rejected today must not take the place of its near-duplicate.
    Columns are `number`, from 0 in the order of release, then of the table; `clip`; and those given.

    Args:
        connection: with the view `judged`, as `verdicts.judge` makes it.
        columns: by which clips are compared.

    Raises:
        FileNotFoundError, ValueError: as `check`; or one of the columns is null.
    """
    named = ", ".join(("clip", *columns))
    parts = [_no_clips(columns)]
    for place, release in enumerate(releases):
        rows = queries.scan([check(release, ("clip", *columns))], numbered=True)
        parts.append(f"SELECT {place} AS release, file_row_number AS place, {named} FROM {rows} WHERE status = 'ok'")
    connection.execute(
        f"CREATE TEMP VIEW clips_released AS SELECT * FROM ({' UNION ALL '.join(parts)}) AS released "
        "ANTI JOIN (SELECT clip FROM judged) AS again USING (clip)"
    )
    counted = ", ".join(f"count(*) FILTER ({column} IS NULL)" for column in columns)
    nulls = connection.sql(f"SELECT release, {counted} FROM clips_released GROUP BY release ORDER BY release")
    for place, *missing in nulls.fetchall():
        for column, count in zip(columns, missing, strict=True):
            if count:
                raise ValueError(
                    f"{releases[place]} has {count} clips whose {column} is null: score and select that release "
                    "again, or leave it out of clips.earlier_releases"
                )
    connection.execute(
        "CREATE TEMP TABLE numbers AS SELECT release, place, row_number() OVER (ORDER BY release, place) - 1 AS number "
        "FROM clips_released"
    )
    connection.execute(
        f"CREATE TEMP VIEW released AS SELECT number, {named} FROM clips_released JOIN numbers USING (release, place)"
    )


def _no_clips(columns: Sequence[str]) -> str:
    kinds = [f"NULL::{'VARCHAR' if str(tables.SCORES.field(name).type) == 'string' else 'BLOB'} AS {name}"
             for name in ("clip", *columns)]  # fmt: skip
    return f"SELECT 0 AS release, 0::BIGINT AS place, {', '.join(kinds)} WHERE false"


def drift(connection: duckdb.DuckDBPyConnection, judged: Path, settings: ClipSettings) -> dict[str, float | None]:
    """Return how far each score's distribution is from the last earlier release's, 0 to 1; empty without one.

    None is a score that the release did not measure: there is nothing to compare. One that it had, and that is
    missing now, is 1.

    Args:
        judged: table of schema CLIPS, of which the rows with status ok count.

    Raises:
        FileNotFoundError, ValueError: as `check`.
    """
    if not settings.earlier_releases:
        return {}
    scores = list(ranges(settings))
    last = check(settings.earlier_releases[-1], scores)
    return {score: distance(connection, judged, last, score) for score in scores}


def distance(connection: duckdb.DuckDBPyConnection, now: Path, before: Path, score: str) -> float | None:
    """Return the Kolmogorov-Smirnov distance of a score in two tables: the most that its cumulative shares differ.

    Counted are finite values of rows with status ok. None where there is none before, 1 where there is none now.
    """
    values, totals = [], []
    for sign, table in ((1, now), (0, before)):
        rows = f"{queries.scan([table])} WHERE status = 'ok' AND isfinite({score}::DOUBLE)"
        values.append(f"SELECT {score}::DOUBLE AS value, {sign} AS is_now FROM {rows}")
        totals += connection.sql(f"SELECT count(*) FROM {rows}").fetchall()
    (num_now,), (num_before,) = totals
    if not num_before:
        return None
    if not num_now:
        return 1.0
    counts = connection.sql(
        f"""SELECT sum(is_now)::BIGINT AS here, (count(*) - sum(is_now))::BIGINT AS there
            FROM ({" UNION ALL ".join(values)}) GROUP BY value ORDER BY value"""
    )
    furthest, here, there = 0.0, 0, 0
    for batch in counts.to_arrow_reader(_BATCH_ROWS):
        now_below, before_below = here + np.cumsum(batch["here"]), there + np.cumsum(batch["there"])
        furthest = max(furthest, float(np.abs(now_below / num_now - before_below / num_before).max()))
        here, there = int(now_below[-1]), int(before_below[-1])
    return furthest
