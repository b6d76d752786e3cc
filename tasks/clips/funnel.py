"""Replay thresholds over the table of scores in DuckDB: what they keep, lose and shift. Nothing is written.

The verdict on each shot is that of stage clips (tasks/clips/verdicts.py).
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from tasks.clips import thresholds, verdicts
from tasks.clips.settings import ClipSettings
from tasks.clips.thresholds import Amount, Limit
from tasks.storage import queries, stills

CATEGORIES = {
    "orientation": "orientation",
    "main colour": "colours[1]",
    "caption": "CASE WHEN caption IS NULL THEN 'without' ELSE 'with' END",
    "begins with": "transition",
}
"""Kinds of shots whose shares are compared before and after: name, and what it is in SQL."""


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
    with _connect() as connection:
        verdicts.judge(connection, scores, settings)
        groups = connection.sql(
            f"""SELECT coalesce(judged.reason, later.reason) AS reason,
                    {", ".join(f"coalesce({value}, 'unknown')" for value in CATEGORIES.values())},
                    count(*), sum({verdicts.MICROSECONDS})::BIGINT
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
    with _connect() as connection:
        verdicts.judge_alone(connection, scores, settings)
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


@contextmanager
def _connect() -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a database in memory; what does not fit there is spilled among the temporary files, and gone after."""
    with tempfile.TemporaryDirectory(prefix="stiv-funnel-") as spill, queries.connect(Path(spill)) as connection:
        yield connection


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
                    ORDER BY abs(near.score - {queries.double(limit.value)}), judged.clip"""
        sides.append(connection.sql(query).fetchall())
    return BorderlineShots(limit, *sides)
