"""Earlier releases: tables of clips that were handed on before, and how far this one has drifted from the last.

A release is a copy of a table of clips (`data/clips/clips.parquet`), named in `clips.earlier_releases`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.clips.settings import ClipSettings
from tasks.clips.thresholds import ranges
from tasks.storage import tables


def read(release: str, columns: Sequence[str]) -> pa.Table:
    """Return columns of the clips of one earlier release, without the shots it rejected.

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
    return pq.read_table(path, columns=list(columns), filters=[("status", "=", "ok")])


def released_clips(releases: Sequence[str], present: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """Return `clip` and `columns` of the clips of earlier releases, without the shots that are `present` again.

    Those are judged again: a shot that is rejected today must not take the place of its near-duplicate.

    Raises:
        FileNotFoundError, ValueError: as `read`; or one of the columns is null.
    """
    schema = pa.schema([tables.SCORES.field(name) for name in ("clip", *columns)])
    again = pa.array(present, pa.string())
    released = [schema.empty_table()]
    for release in releases:
        table = read(release, schema.names)
        table = table.filter(pc.invert(pc.is_in(table["clip"], again)))
        if missing := [name for name in columns if table[name].null_count]:
            raise ValueError(
                f"{release} has {table[missing[0]].null_count} clips whose {missing[0]} is null: score and select that "
                "release again, or leave it out of clips.earlier_releases"
            )
        released.append(table)
    return pa.concat_tables(released)


def drift(clips: pa.Table, settings: ClipSettings) -> dict[str, float | None]:
    """Return how far each score's distribution is from the last earlier release's, 0 to 1; empty without one.

    None is a score that the release did not measure: there is nothing to compare. One that it had, and that is
    missing now, is 1.

    Args:
        clips: rows of schema CLIPS with status ok.

    Raises:
        FileNotFoundError, ValueError: as `read`.
    """
    if not settings.earlier_releases:
        return {}
    scores = list(ranges(settings))
    last = read(settings.earlier_releases[-1], scores)
    return {score: distance(_measured(clips[score]), _measured(last[score])) for score in scores}


def distance(now: np.ndarray, before: np.ndarray) -> float | None:
    """Return the Kolmogorov-Smirnov distance of two samples: the most that their cumulative shares differ."""
    if not before.size:
        return None
    if not now.size:
        return 1.0
    now, before = np.sort(now), np.sort(before)
    values = np.concatenate([now, before])
    shares = (np.searchsorted(sample, values, side="right") / sample.size for sample in (now, before))
    return float(np.abs(np.subtract(*shares)).max())


def _measured(column: pa.ChunkedArray) -> np.ndarray:
    values = column.drop_null().to_numpy().astype(np.float64)
    return values[np.isfinite(values)]
