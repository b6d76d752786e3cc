"""Expectations on rows, counted in DuckDB: how many rows of a table do not meet each, and some of those.

Great Expectations then checks one row of counts, whatever the size of the table. Which values are missing, and that a
missing one meets all that is not about missing ones, is as Great Expectations has it for pandas.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import great_expectations.expectations as gxe
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.storage import queries

MOST_SHOWN = 200
"""Rows that the pages name, of those that do not meet one expectation."""
_MOST_SAMPLED = 20  # of their values, as Great Expectations samples them
_ROWS, _COLUMNS = "rows", "columns"  # of the counts: how many rows the table has, and the names of its columns


class ExpectNoRow(gxe.ExpectColumnMaxToBeBetween):
    """That one of the counts is 0; the result names rows that were counted, as that of an expectation on rows does."""

    about: str
    """What the rows are shown by."""
    among: int
    """How many rows were looked at."""
    shown: list[dict[str, Any]]
    """Some of the rows that were counted: `clip`, and what `about` says."""

    def _validate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        outcome = super()._validate(*args, **kwargs)
        count = int(outcome["result"]["observed_value"])
        values = [row[self.about] for row in self.shown]
        frequent = Counter(values).most_common(_MOST_SAMPLED)
        result = {
            "element_count": self.among,
            "unexpected_count": count,
            "unexpected_percent": 100 * count / max(1, self.among),
            "partial_unexpected_list": values[:_MOST_SAMPLED],
            "partial_unexpected_counts": [{"value": value, "count": number} for value, number in frequent],
            "unexpected_list": values,
            "unexpected_index_list": self.shown,
            "unexpected_index_column_names": ["clip"],
        }
        return {"success": outcome["success"], "result": result}


class _Wrong(NamedTuple):
    """Which rows do not meet an expectation, in SQL."""

    counted_as: str
    """Column of the counts."""
    about: str
    """Column that the rows are shown by, or what is made of several."""
    needs: tuple[str, ...]
    """Columns that the table must have."""
    test: str
    """True for a row that does not meet it, null for one that it is not about."""


def counted(
    connection: duckdb.DuckDBPyConnection, table: Path, where: str, suite: Sequence[gxe.Expectation]
) -> tuple[dict[str, Any], list[gxe.Expectation]]:
    """Return the counts that a suite is about, and for each expectation one that is met by the counts alone.

    A count for which the table lacks a column is missing: its expectation cannot be evaluated then, and is not met.

    Args:
        where: in SQL, which rows of the table count.
        suite: on numbers of rows, lists of columns, and, of columns: values that are not null, between, in a set,
            unique, like a regular expression, or greater than those of another.
    """
    schema = pq.read_schema(table)
    rows = f"(SELECT * FROM {queries.scan([table], numbered=True)} WHERE {where})"
    wrong = {place: _wrong(one, rows, schema) for place, one in enumerate(suite) if isinstance(one, _ON_ROWS)}
    known = {place: one for place, one in wrong.items() if set(one.needs) <= set(schema.names)}
    tests = ", ".join(["true AS every", *(f"{one.test} AS test_{place}" for place, one in known.items())])
    sums = ["count(*)", *(f"count(*) FILTER (test_{place}), count(test_{place})" for place in known)]
    (num_rows, *numbers) = connection.sql(f"SELECT {', '.join(sums)} FROM (SELECT {tests} FROM {rows})").fetchall()[0]
    found = dict(zip(known, zip(numbers[::2], numbers[1::2], strict=True), strict=True))
    counts = {_ROWS: num_rows, _COLUMNS: ", ".join(schema.names)}
    counts |= {one.counted_as: found[place][0] for place, one in known.items()}
    on_counts: list[gxe.Expectation] = []
    for place, expectation in enumerate(suite):
        if place not in wrong:
            on_counts.append(_of_all(expectation))
            continue
        one, (count, among) = wrong[place], found.get(place, (0, 0))
        shown = _shown(connection, rows, one, schema) if count else []
        told = _told(expectation)
        on_counts.append(
            ExpectNoRow(column=one.counted_as, max_value=0, about=one.about, among=among, shown=shown, **told)
        )
    return counts, on_counts


def _told(expectation: gxe.Expectation) -> dict[str, Any]:
    """Return what an expectation on counts has of the one that it stands for."""
    return {"description": expectation.description, "meta": {"of": expectation.expectation_type}}


def _of_all(expectation: gxe.Expectation) -> gxe.Expectation:
    """Return what stands for an expectation that is not on rows."""
    told = _told(expectation)
    if isinstance(expectation, gxe.ExpectTableRowCountToBeBetween):
        least, most = expectation.min_value, expectation.max_value
        return gxe.ExpectColumnMaxToBeBetween(column=_ROWS, min_value=least, max_value=most, **told)
    assert isinstance(expectation, gxe.ExpectTableColumnsToMatchOrderedList), expectation
    columns: Any = expectation.column_list
    return gxe.ExpectColumnValuesToBeInSet(column=_COLUMNS, value_set=[", ".join(columns)], **told)


_ON_ROWS = (
    gxe.ExpectColumnValuesToNotBeNull,
    gxe.ExpectColumnValuesToBeBetween,
    gxe.ExpectColumnValuesToBeInSet,
    gxe.ExpectColumnValuesToBeUnique,
    gxe.ExpectColumnValuesToMatchRegex,
    gxe.ExpectColumnPairValuesAToBeGreaterThanB,
)


def _wrong(expectation: Any, rows: str, schema: pa.Schema) -> _Wrong:
    if isinstance(expectation, gxe.ExpectColumnPairValuesAToBeGreaterThanB):
        greater, less = expectation.column_A, expectation.column_B
        test = f"NOT coalesce({greater} > {less}, {greater} IS NULL AND {less} IS NULL)"
        return _Wrong(f"{greater} not greater", f"({greater}, {less})", (greater, less), test)
    column = expectation.column
    is_missing = f"{column} IS NULL" + f" OR isnan({column})" * _is_float(schema, column)
    match expectation:
        case gxe.ExpectColumnValuesToNotBeNull():
            word, test = "missing", is_missing
        case gxe.ExpectColumnValuesToBeBetween():
            ends: Any = ((expectation.min_value, "<"), (expectation.max_value, ">"))
            outside = [f"{column}::DOUBLE {sign} {queries.double(end)}" for end, sign in ends if end is not None]
            word, test = "outside", f"NOT ({is_missing}) AND ({' OR '.join(outside) or 'false'})"
        case gxe.ExpectColumnValuesToBeInSet():
            word, test = "other", f"{column} NOT IN ({', '.join(map(queries.quoted, expectation.value_set))})"
        case gxe.ExpectColumnValuesToBeUnique():
            word, test = "repeated", f"{column} IN ({_repeated(rows, column)})"
        case _:
            word, test = "unlike", f"NOT regexp_matches({column}, {queries.quoted(expectation.regex)})"
    test = f"coalesce({test}, false)"
    only = expectation.row_condition
    if only is None:
        return _Wrong(f"{column} {word}", column, (column,), test)
    test = f"CASE WHEN {only.column.name} = {queries.quoted(only.parameter)} THEN {test} END"
    return _Wrong(f"{column} {word}", column, (column, only.column.name), test)


def _repeated(rows: str, column: str) -> str:
    """Return a query of the values that occur twice, found by their hashes: few bytes of each are kept in mind."""
    hashes = f"SELECT hash({column}) FROM {rows} WHERE {column} IS NOT NULL GROUP BY ALL HAVING count(*) > 1"
    return f"SELECT {column} FROM {rows} WHERE hash({column}) IN ({hashes}) GROUP BY ALL HAVING count(*) > 1"


def _is_float(schema: pa.Schema, column: str) -> bool:
    return column in schema.names and pa.types.is_floating(schema.field(column).type)


def _shown(connection: duckdb.DuckDBPyConnection, rows: str, wrong: _Wrong, schema: pa.Schema) -> list[dict[str, Any]]:
    """Return the first rows that do not meet an expectation."""
    clip = "clip" if "clip" in schema.names else "NULL"
    found = connection.sql(
        f"SELECT {clip}, {wrong.about} FROM {rows} WHERE {wrong.test} ORDER BY file_row_number LIMIT {MOST_SHOWN}"
    ).fetchall()
    return [{"clip": clip, wrong.about: _as_json(value)} for clip, value in found]


def _as_json(value: Any) -> Any:
    is_plain = value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else str(value)
