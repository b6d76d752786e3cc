"""Which category each sample is of, and how often categories are drawn: what `balance: category` of a recipe needs.

Without torch: nobody waits for it at the door.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stiv_model.latents import table_columns
from stiv_model.latents.order import BalancedOrder, Order

_SMALL = np.int16
COLUMNS = ("category", "category_weight")
"""Of the table of latents, and of the record of a run that is balanced."""


class Balance(NamedTuple):
    """The categories of some samples."""

    names: list[str]
    """Of the categories that have a sample, sorted."""
    groups: np.ndarray
    """Number of each sample's category: (samples,)."""
    weights: list[float]
    """Of the categories; a category's share of the draws is its weight divided by the sum."""

    @property
    def counts(self) -> dict[str, int]:
        """How many samples each category has."""
        return dict(zip(self.names, np.bincount(self.groups, minlength=len(self.names)).tolist(), strict=True))


def read(table: Path, numbers: np.ndarray, only_ok: bool) -> Balance:
    """Return the categories of some rows of a table.

    Args:
        table: of latents, or the record of a run.
        numbers: of the rows, in the order of the samples: (samples,).
        only_ok: whether these count the rows that are ok only.

    Raises:
        ValueError: the table has no categories with weights; the message has the remedy.
    """
    if not {*COLUMNS} <= {*pq.read_schema(table).names}:
        raise _without_categories(table)
    known, weights = table_columns.Numbered(), dict[int, set[float | None]]()
    found = []
    for whole in table_columns.batches(table, [*COLUMNS, *(["status"] if only_ok else [])]):
        rows = np.flatnonzero(table_columns.is_ok(whole)) if only_ok else np.arange(len(whole))
        batch = table_columns.take(whole, rows)
        of_batch = known.numbers(batch["category"])
        found.append(of_batch.astype(_SMALL))  # of a hundred million rows, and in every rank
        _note_weights(weights, of_batch, batch["category_weight"])
    groups = np.concatenate([*found, np.empty(0, _SMALL)])[numbers]
    if (groups < 0).any():
        raise _without_categories(table)
    present = sorted(np.unique(groups).tolist(), key=lambda number: known.texts[number])
    if unclear := [known.texts[number] for number in present if len(weights[number]) > 1 or None in weights[number]]:
        raise ValueError(f"{table}: category {unclear[0]} has no weight, or several: run stage latents again")
    places = np.zeros(len(known.texts), _SMALL)
    places[present] = np.arange(len(present))
    names = [known.texts[number] for number in present]
    return Balance(names, places[groups], [one for number in present for one in weights[number] if one is not None])


def _note_weights(weights: dict[int, set[float | None]], groups: np.ndarray, column: pa.Array) -> None:
    """Take in the weights that stand beside categories, by the number of these."""
    for group in np.unique(groups[groups >= 0]).tolist():
        own = table_columns.take(column, np.flatnonzero(groups == group))
        weights.setdefault(group, set()).update(own.unique().to_pylist())


def _without_categories(table: Path) -> ValueError:
    return ValueError(
        f"balance is category, but clips in {table} have no category with a weight: set categories.by and "
        "categories.weights in params.yaml and run stages categories and latents (dvc repro latents), or set balance: "
        "null"
    )


def order(samples: int, seed: int, balance: Balance | None) -> Order | BalancedOrder:
    """Return the order in which samples are drawn.

    Args:
        samples: how many there are.
        seed: of the run.
        balance: their categories; None draws each sample once in an epoch.

    Raises:
        ValueError: there are none, or a category is drawn less than once in a million times.
    """
    return Order(samples, seed) if balance is None else BalancedOrder(balance.groups, balance.weights, seed)
