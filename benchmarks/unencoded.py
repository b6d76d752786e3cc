"""Stage latents without its encoders, for figures of all that is not encoding."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.params import load_params
from tasks.latents.encode import SUFFIX, Latents
from tasks.latents.encoders import facts
from tasks.storage import parts, queries, tables
from tasks.storage.shards import Shard
from tasks.storage.stage import Stage

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")


def load_encoders() -> None:
    """Load what the stage's own process takes of the encoders."""
    facts(PARAMS.vae, PARAMS.text)


def stage(folder: Path) -> Latents:
    """Return the stage on the tables of a folder."""
    unopened: Any = nullcontext  # no file is decoded
    folders = folder / "clips", folder / "captions"
    return Latents("raw", *folders, PARAMS.latents, PARAMS.vae, PARAMS.text, PARAMS.sandbox, unopened)


def pretend(stage: Stage, work_on: Callable[[Shard], None], todo: list[Shard]) -> None:
    """Write what shards leave, but for latents: of each part an empty file."""
    for shard in todo:
        given = _given(shard)
        numbers = given["part"].to_numpy()
        starts = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]]))
        names = [parts.file_name(number, SUFFIX) for number in numbers.tolist()]
        made: dict[str, Any] = {
            "status": pa.array(["ok"] * len(given)),
            "shard": pa.array(names),
            "row": pa.array(np.arange(len(given)) - np.repeat(starts, np.diff([*starts, len(given)])), pa.int32()),
            "sha256": pc.binary_join_element_wise("sha256 of ", given["clip"], ""),
        }
        columns = [
            given[name] if name in given.column_names else made.get(name, pa.nulls(len(given), kind))
            for name, kind in zip(tables.LATENTS.names, tables.LATENTS.types, strict=True)
        ]
        product = shard.path.parent / "product"
        for name in set(names):
            (product / name).touch()
        notes = {"sha256": dict.fromkeys(names, "0" * 64), "seconds": 0.0, "waited": 0.0}
        shard.path.with_suffix(".json").write_text(json.dumps(notes))
        table = pa.table(columns, tables.LATENTS.names).cast(tables.LATENTS)
        queries.write(shard.path, table.to_batches(), tables.LATENTS)


def _given(shard: Shard) -> pa.Table:
    with pa.memory_map(str(shard.given)) as source:
        file = pa.ipc.open_file(source)
        first, last = shard.first // queries.GROUP_ROWS, -(-(shard.first + shard.inputs) // queries.GROUP_ROWS)
        table = pa.Table.from_batches([file.get_batch(number) for number in range(first, last)])
    return table.slice(shard.first - first * queries.GROUP_ROWS, shard.inputs).combine_chunks()
