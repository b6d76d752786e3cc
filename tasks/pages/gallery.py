"""Look things up in the tables of shots, clips and captions: what `stiv browse` shows."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow.parquet as pq

from tasks.storage import stills, tables

# Scores that can be filtered by, in the order shown.
SCORES = tuple(
    name
    for name, kind in zip(tables.CLIPS.names, tables.CLIPS.types, strict=True)
    if str(kind) in ("double", "int32") and name not in ("start", "end")
)
SHOWN = 500
_NOT_SHOWN = ("video_hash", "embedding", "embedder")


class Filters(NamedTuple):
    """Which shots to find; an empty filter allows all."""

    within: Mapping[str, tuple[float, float]]
    """By score, the smallest and largest value, both allowed. A shot that lacks the score is not found."""
    statuses: Sequence[str]
    reasons: Sequence[str]
    words: str
    """Text that the caption or the uri contains, whether in capitals or not."""


class Gallery:
    """Every shot with its caption, and with its row of the latest of the tables of clips, scores and shots.

    Args:
        data: folder of the stages' tables.

    Raises:
        FileNotFoundError: no shots have been made.
        ValueError: a table is of an earlier version.
    """

    def __init__(self, data: Path):
        self.data = data
        stages = ("clips", "scores", "shots")
        self.stage = next((stage for stage in stages if self._table(stage).exists()), "")
        if not self.stage:
            raise FileNotFoundError(f"{self._table('shots')} does not exist: run stiv pipeline, or dvc repro, first")
        self.database = duckdb.connect()
        self.database.execute("SET threads = 2; SET enable_progress_bar = false")
        self.columns = pq.read_schema(self._table(self.stage)).names
        for stage in (self.stage, "shots"):
            names = pq.read_schema(self._table(stage)).names
            tables.refuse_renamed(self._table(stage), names, tables.CLIPS.names, "dvc repro makes it again")
        rows, shots = (f"read_parquet('{_quoted(self._table(stage))}')" for stage in (self.stage, "shots"))
        captions = self._table("captions")
        if captions.exists():
            texts = f"SELECT clip, text, captioner FROM read_parquet('{_quoted(captions)}')"
        else:
            texts = "SELECT NULL::VARCHAR AS clip, NULL::VARCHAR AS text, NULL::VARCHAR AS captioner WHERE false"
        self.database.execute(
            f"CREATE VIEW gallery AS SELECT rows.*, texts.text, texts.captioner FROM (FROM {rows} "
            f"UNION ALL BY NAME FROM {shots} WHERE clip NOT IN (SELECT clip FROM {rows})) AS rows "
            f"LEFT JOIN ({texts}) AS texts ON rows.clip = texts.clip"
        )

    def _table(self, stage: str) -> Path:
        return self.data / stage / tables.table_name(stage)

    def _run(self, query: str, values: Sequence[Any] = ()) -> duckdb.DuckDBPyConnection:
        return self.database.cursor().execute(query, values)  # a cursor of its own: the page's runs are threads

    def extent(self) -> dict[str, tuple[float, float]]:
        """Return the smallest and largest value of each score that was measured at all."""
        return self._extent

    def reasons(self) -> list[str]:
        """Return the reason codes that occur, the most frequent first."""
        return self._reasons

    # a Gallery is opened once per version of the tables: what is asked for at each click is looked up at the first

    @cached_property
    def _extent(self) -> dict[str, tuple[float, float]]:
        names = [name for name in SCORES if name in self.columns]
        parts = ", ".join(f"min({name}), max({name})" for name in names)
        values = self._run(f"SELECT {parts} FROM gallery").fetchall()[0]
        pairs = dict(zip(names, zip(values[::2], values[1::2], strict=True), strict=True))
        return {name: (float(least), float(most)) for name, (least, most) in pairs.items() if least is not None}

    @cached_property
    def _reasons(self) -> list[str]:
        found = self._run(
            "SELECT reason FROM gallery WHERE reason IS NOT NULL GROUP BY reason ORDER BY count(*) DESC, reason"
        )
        return [reason for (reason,) in found.fetchall()]

    def find(self, filters: Filters, order: str, descending: bool) -> tuple[int, float, list[dict[str, Any]]]:
        """Return how many shots the filters allow, how long they are together (hours), and the first SHOWN rows.

        Raises:
            ValueError: there is no such score, or no such column to order by.
        """
        tests, values = _tests(filters)
        where = f"WHERE {' AND '.join(tests)}" if tests else ""
        count, seconds = self._run(
            f'SELECT count(*), coalesce(sum("end" - start), 0) FROM gallery {where}', values
        ).fetchall()[0]
        if order not in self.columns:
            raise ValueError(f"no column {order}: it is one of {sorted(self.columns)}")
        names = [name for name in (*self.columns, "text", "captioner") if name not in _NOT_SHOWN]
        columns = ", ".join(f'"{name}"' for name in names)
        shown = self._run(
            f"SELECT {columns} FROM gallery {where} "
            f'ORDER BY "{order}" {"DESC" if descending else "ASC"} NULLS LAST, clip LIMIT {SHOWN}',
            values,
        )
        names = [column[0] for column in shown.description]
        return count, seconds / 3600, [dict(zip(names, row, strict=True)) for row in shown.fetchall()]

    def stills(self, shot: str) -> list[bytes]:
        """Return the shot's small pictures as JPEG, none of a shot that is not ok."""
        return stills.find(self._table("shots").parent, [shot]).get(shot, [])


def _tests(filters: Filters) -> tuple[list[str], list[Any]]:
    tests, values = [], list[Any]()
    for name, (least, most) in filters.within.items():
        if name not in SCORES:
            raise ValueError(f"no score {name}: it is one of {', '.join(SCORES)}")
        tests.append(f"{name} BETWEEN ? AND ?")
        values += [least, most]
    for column, allowed in (("status", filters.statuses), ("reason", filters.reasons)):
        if allowed:
            tests.append(f"{column} IN ({', '.join('?' * len(allowed))})")
            values += allowed
    if filters.words:
        tests.append("(contains(lower(coalesce(text, caption, '')), ?) OR contains(lower(uri), ?))")
        values += [filters.words.lower()] * 2
    return tests, values


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
