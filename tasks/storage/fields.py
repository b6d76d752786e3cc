"""What code reads of a row: a NamedTuple of some columns, which is held to the table's schema where it is declared.

Rows that are written, or handed on whole, stay mappings of all columns.
"""

from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa

Fields = TypeVar("Fields", bound=NamedTuple)


def columns_of(schema: pa.Schema) -> Callable[[type[Fields]], type[Fields]]:
    """Return a decorator for a NamedTuple whose fields are columns of a table, with the types that Arrow gives them.

    A field without None is of rows in which the column is never null, such as those with status ok.

    Raises:
        TypeError: a field is no column of `schema`, or of another type.
    """

    def held(kind: type[Fields]) -> type[Fields]:
        for name, annotation in get_type_hints(kind).items():
            if name not in schema.names or _python_type(schema.field(name).type) != _without_none(annotation):
                found = schema.field(name).type if name in schema.names else "no column"
                raise TypeError(f"{kind.__name__}.{name} is {annotation}, and the table has {found}")
        return kind

    return held


def take(kind: type[Fields], row: Mapping[str, Any]) -> Fields:
    """Return what is read of one row.

    Raises:
        KeyError: the row lacks a column.
    """
    return kind._make(row[name] for name in kind._fields)


def take_all(kind: type[Fields], rows: Iterable[Mapping[str, Any]]) -> list[Fields]:
    """Return what is read of each row."""
    return [take(kind, row) for row in rows]


def _python_type(arrow: pa.DataType) -> Any:
    if pa.types.is_list(arrow):
        return list[_python_type(arrow.value_type)]  # type: ignore[misc]  # made for comparison, not for mypy
    for python, is_it in ((str, pa.types.is_string), (int, pa.types.is_integer), (float, pa.types.is_floating)):
        if is_it(arrow):
            return python
    return bytes


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) is UnionType:
        (only,) = (part for part in get_args(annotation) if part is not NoneType)
        return only
    return annotation
