"""Which clips a run is trained on: written beside its weights, so that it can be answered for at any time."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stiv_model.latents import data_plan
from stiv_model.latents.folder import TABLE
from stiv_model.settings import Run

SAMPLES = "samples.parquet"
_COLUMNS = ["clip", "video", "uri", "licence", "source_url"]


def write(run: Run, planned: data_plan.Plan, folder: Path) -> None:
    """Write which clips a run's samples are, in the order that `stiv_model.latents.order.Order` numbers.

    Raises:
        ValueError: the latents are not those that the run was planned with.
    """
    latents = Path(run.latents)
    names = data_plan.sample_names(latents, run.recipe)
    if data_plan.hash_names(names) != planned.samples_sha256:
        raise ValueError(f"{latents} has other clips than {run.recipe_name} was planned with: they changed meanwhile")
    table = pq.read_table(latents / TABLE, columns=_COLUMNS)
    chosen = table.filter(pc.is_in(table["clip"], pa.array(names))).sort_by("clip")
    pq.write_table(chosen, folder / SAMPLES, compression="zstd")
