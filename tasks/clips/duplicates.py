"""Which clips are nearly the same, by their video hashes and embeddings: the best stays, the others name it.

A leader algorithm: clips come best first; one that is near a leader, by either measure, is its near-duplicate, any
other becomes a leader itself and is kept. How the clips near others are found: tasks/clips/near_hashes.py and
tasks/clips/near_embeddings.py. Exact, and the same on every machine.

Cost of 1 million hashes that are no near-duplicates, at 24 bits: under a minute of one core; of embeddings
far more (docs/curation.md).
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import duckdb
import numpy as np
import pyarrow as pa

from tasks.clips import near_embeddings, near_hashes, releases, thresholds
from tasks.clips.near_embeddings import NearEmbeddings
from tasks.clips.near_hashes import NearHashes
from tasks.clips.settings import ClipSettings

MERITS = ("quality", "width", "height", "seconds")
"""Columns by which one of several near-duplicates is the best."""

_BATCH_ROWS = 65_536  # read at once
_BLOCK_CLIPS = 512  # looked at together: among themselves they are compared one by one


class Near(Protocol):
    """One measure of which clips are near each other; a clip is a row of one table."""

    def among(self, rows: np.ndarray) -> np.ndarray:
        """Return which of these are near each other: bool (rows, rows)."""

    def pairs(self, rows: np.ndarray, is_open: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield pairs that are near, as two arrays: one of `rows`, and one of the whole table that is open."""


def reject(connection: duckdb.DuckDBPyConnection, settings: ClipSettings) -> None:
    """Add to the table `later` the shots that pass by themselves and are near-duplicates, each with the clip kept.

    Args:
        connection: with view `judged` and table `later`, as `verdicts.judge` makes them.

    Raises:
        FileNotFoundError: an earlier release is gone.
        ValueError: one lacks a column, or hashes or embeddings cannot be compared.
    """
    releases.open_released(connection, settings.earlier_releases, thresholds.duplicate_columns(settings))
    connection.execute("CREATE TEMP VIEW passed AS SELECT * FROM judged WHERE reason IS NULL")
    found = find_duplicates(connection, settings.duplicate_bits, settings.duplicate_similarity)
    connection.register("found", found)
    connection.execute(
        f"""INSERT INTO later
            SELECT found.row, '{thresholds.NEAR_DUPLICATE}', coalesce(released.clip, leader.clip) FROM found
            LEFT JOIN (SELECT number, clip FROM released) AS released ON released.number = found.released
            LEFT JOIN (SELECT row, clip FROM judged) AS leader ON leader.row = found.leader"""
    )
    connection.unregister("found")


def find_duplicates(connection: duckdb.DuckDBPyConnection, bits: int | None, similarity: float | None) -> pa.Table:
    """Return the clips that are near-duplicates, each with the clip that is kept instead: the best that is near it.

    Best is the higher quality, then the larger picture, then the longer clip, then the first name. What was
    released earlier is better than anything new.

    Args:
        connection: with relations `passed`, columns `row`, `clip`, MERITS and those compared (`video_hash`, or
            `embedding` and `embedder`), and `released`, clips of earlier releases: columns `number`, from 0, `clip` and
            those compared. None is null.
        bits: video hashes that differ in at most so many bits are near; None compares none.
        similarity: embeddings of at least this cosine, 0 to 1, are near; None compares none.

    Returns:
        Columns `row`, and what is kept: `leader`, its row, or `released`, its number. All int64.

    Raises:
        ValueError: hashes are of several lengths, or embeddings of several encoders.
    """
    best_first = "quality DESC, width::DOUBLE * height::DOUBLE DESC, seconds DESC, clip, row"
    rows = _numbers(connection, f"SELECT row FROM passed ORDER BY {best_first}")
    ((num_earlier,),) = connection.sql("SELECT count(*) FROM released").fetchall()
    count = num_earlier + len(rows)
    ranks = np.zeros(rows.max(initial=-1) + 1, np.int64)
    ranks[rows] = np.arange(num_earlier, count)

    def pieces(column: str) -> Iterator[tuple[np.ndarray, pa.Array]]:
        for query, places in (("number AS place FROM released", None), ("row AS place FROM passed", ranks)):
            for batch in _batches(connection, f"SELECT {column}, {query}"):
                numbers = batch["place"].to_numpy()
                yield numbers if places is None else places[numbers], batch[column]

    measures: list[Near] = []
    if bits is not None:
        measures.append(NearHashes(near_hashes.matrix(pieces("video_hash"), count), bits))
    if similarity is not None:
        makers = connection.sql("SELECT embedder FROM passed UNION SELECT embedder FROM released").fetchall()
        near_embeddings.check_makers([maker for (maker,) in makers])
        measures.append(NearEmbeddings(near_embeddings.matrix(pieces("embedding"), count), similarity))
    leaders = find_leaders(measures, count, num_earlier)
    lost = np.flatnonzero(leaders >= 0)
    kept = leaders[lost]
    is_new = kept >= num_earlier
    own = rows[np.where(is_new, kept - num_earlier, 0)] if len(lost) else kept
    columns = [pa.array(rows[lost - num_earlier]), pa.array(own, mask=~is_new), pa.array(kept, mask=is_new)]
    return pa.table(columns, ["row", "leader", "released"])


def _numbers(connection: duckdb.DuckDBPyConnection, query: str) -> np.ndarray:
    """Return the one column of a query, int64, none of it null."""
    return np.concatenate([np.zeros(0, np.int64), *(batch[0].to_numpy() for batch in _batches(connection, query))])


def _batches(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.RecordBatch]:
    yield from connection.sql(query).to_arrow_reader(_BATCH_ROWS)


def find_leaders(measures: Sequence[Near], count: int, num_earlier: int) -> np.ndarray:
    """Return for every clip the number of the first leader near it by any measure, or -1 where it is one itself.

    Args:
        measures: of `count` clips, those of earlier releases first, then the others best first; one at least.
        num_earlier: so many at the start are leaders whatever they resemble.
    """
    leaders = np.full(count, count, np.int64)
    is_open = np.arange(count) >= num_earlier  # not looked at yet, and near no leader of a block before
    for first, last in (*_blocks(0, num_earlier), *_blocks(num_earlier, count)):
        block = np.arange(first, last)
        block = block[leaders[block] == count]
        if first >= num_earlier:
            _find_leaders_within(measures, block, leaders)
            block = block[leaders[block] == count]
        is_open[first:last] = False
        followers = [np.zeros(0, np.int64)]
        for measure in measures:
            for better, rows in measure.pairs(block, is_open):
                np.minimum.at(leaders, rows, better)
                followers.append(rows)
        is_open[np.concatenate(followers)] = False  # a leader found in an earlier block is better than any later one
    return np.where(leaders == count, -1, leaders)


def _blocks(first: int, last: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK_CLIPS, last)) for start in range(first, last, _BLOCK_CLIPS)]


def _find_leaders_within(measures: Sequence[Near], block: np.ndarray, leaders: np.ndarray) -> None:
    """Find leaders within a block: a clip that is near a better one, which is a leader, follows it."""
    near = np.logical_or.reduce([measure.among(block) for measure in measures])
    first, second = np.nonzero(np.triu(near, 1))
    for better, worse in zip(block[first].tolist(), block[second].tolist(), strict=True):
        if leaders[better] == len(leaders):
            leaders[worse] = min(leaders[worse], better)
