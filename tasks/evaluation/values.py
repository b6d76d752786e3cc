"""The table of values per video, beside the card: values.parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.evaluation.card import Card
from tasks.storage import atomic

FILE = "values.parquet"
_FACTS = {
    "height": pa.int32(), "width": pa.int32(), "frames": pa.int32(), "fps": pa.float64(), "pixels": pa.string(),
    "codec": pa.string(), "crf": pa.float64(),
}  # fmt: skip
FIRST = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("prompt", pa.string()),
        ("sha256", pa.string()),  # of the video's bytes; null where there are none
        *_FACTS.items(),
    ]
)
"""The columns of every such table; a column of each metric and of each list of features follows."""


_KINDS = {"share": pa.bool_(), "word": pa.string()}
"""Of columns, by the unit of the metric; others are numbers."""


def table(
    rows: Sequence[Mapping[str, Any]],
    prompts: Mapping[str, str | None],
    units: Mapping[str, str],
    features: Sequence[str],
) -> pa.Table:
    """Return a row per video, in the order of the suite, with a column of each metric that any video has.

    Args:
        rows: as `measure.measure` makes them.
        prompts: by id.
        units: of each metric, by its name.
        features: names of lists of features.
    """
    told = [{name: row.get(name) for name in FIRST.names} | row["facts"] for row in rows]
    for one, row in zip(told, rows, strict=True):
        one |= {"prompt": prompts[row["id"]], "sha256": row["sha256"] if len(row["sha256"]) == 64 else None}
    columns = {
        name: pa.array([one.get(name) for one in told], kind)
        for name, kind in zip(FIRST.names, FIRST.types, strict=True)
    }
    for name, unit in units.items():
        if any(name in row["values"] for row in rows):
            columns[name] = pa.array([row["values"].get(name) for row in rows], _KINDS.get(unit, pa.float64()))
    for name in features:
        if any(name in row["features"] for row in rows):
            columns[name] = pa.array([row["features"].get(name) for row in rows], pa.list_(pa.float64()))
    return pa.table(columns)


def write(path: Path, found: pa.Table) -> str:
    """Write the table; return the sha256 of the file, which is the same for equal tables."""
    pq.write_table(found, path, compression="zstd")
    return atomic.sha256_file(path)


def read(card: Card, path: Path) -> list[dict[str, Any]]:
    """Return the rows that belong to a card.

    Args:
        path: of the card; the table's place is told from there.

    Raises:
        FileNotFoundError: the table is not there.
        ValueError: the card has none, or the table is not the one that the card was made with.
    """
    if card.values is None:
        raise ValueError(f"{path} has no values per video")
    file = path.parent / card.values.file
    if not file.is_file():
        raise FileNotFoundError(f"{file}, which {path} names, is not there: make both again (stiv evaluate)")
    if (found := atomic.sha256_file(file)) != card.values.sha256:
        raise ValueError(
            f"{file} is not the table that {path} was made with: its sha256 is {found[:12]}, and the card says "
            f"{card.values.sha256[:12]}: make both again (stiv evaluate)"
        )
    return pq.read_table(file).to_pylist()
