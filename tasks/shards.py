"""A stage's work in shards: each written whole, so that a killed stage goes on at what is missing."""

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import manifest, resume


class Shard(NamedTuple):
    """A piece of a stage's input, and the table that its rows become."""

    path: Path
    given: list[Any]

    @property
    def is_done(self) -> bool:
        return self.path.exists()

    def write(self, rows: list[dict], schema: pa.Schema) -> None:
        """Write the shard's rows; from then on it is done."""
        with resume.whole(self.path) as aside:
            manifest.write_rows(aside, rows, schema)


def cut(work: Path, given: list[Any], size: int) -> list[Shard]:
    """Cut what a stage is given into shards of at most `size`, with their tables in `work`."""
    starts = range(0, len(given), size)
    return [Shard(work / f"shard-{start // size:05d}.parquet", given[start : start + size]) for start in starts]


def join(paths: list[Path], out: Path, schema: pa.Schema) -> None:
    """Write the rows of several tables as one, in the order given, one of them in memory at a time."""
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for path in paths:
            table = pq.read_table(path, schema=schema)
            if table.num_rows:
                writer.write_table(table)
