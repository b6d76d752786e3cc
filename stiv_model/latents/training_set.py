"""Which clips a run is trained on: written beside its weights, so that it can be answered for at any time."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stiv_model.latents import balance, data_plan
from stiv_model.latents.folder import TABLE
from stiv_model.settings import Run

SAMPLES = "samples.parquet"
_COLUMNS = ["clip", "video", "uri", "licence", "source_url"]
_ROWS_AT_ONCE = 1 << 20


def write(run: Run, planned: data_plan.Plan, folder: Path) -> None:
    """Write which clips a run's samples are, in the order that `stiv_model.latents.order.Order` numbers.

    Raises:
        ValueError: the latents are not those that the run was planned with.
    """
    latents = Path(run.latents)
    chosen = data_plan.samples(latents, run.recipe)
    if chosen.sha256 != planned.samples_sha256:
        raise ValueError(f"{latents} has other clips than {run.recipe_name} was planned with: they changed meanwhile")
    columns = [*_COLUMNS, *(balance.COLUMNS if run.recipe.balance else ())]
    # the same few values again and again but for the clips: as numbers of them, and the clips with wide offsets
    table = pq.read_table(latents / TABLE, columns=columns, read_dictionary=_COLUMNS[1:])
    kinds = [pa.float64() if name == "category_weight" else pa.string() for name in columns]
    schema = pa.schema(list(zip(columns, kinds, strict=True)))
    wide = table.set_column(0, "clip", table["clip"].cast(pa.large_string())).combine_chunks()
    with pq.ParquetWriter(folder / SAMPLES, schema, compression="zstd") as writer:
        for first in range(0, len(chosen.numbers), _ROWS_AT_ONCE):
            writer.write_table(wide.take(chosen.numbers[first : first + _ROWS_AT_ONCE]).cast(schema))
