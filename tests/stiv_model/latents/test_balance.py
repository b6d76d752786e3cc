"""Samples by category: what the loader, the plan and the record of a run find, and what is refused."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stiv_model.latents import balance, data_plan, training_set
from stiv_model.latents.dataset import LatentData
from stiv_model.latents.order import BalancedOrder, Order
from stiv_model.settings import Run
from tasks.storage import tables
from tests.stiv_model import runs

RECIPE = runs.RECIPE.model_copy(update={"balance": "category"})
KINDS = ["people", "shapes", "shapes", "animals", "shapes", "shapes", "shapes", "animals", "shapes", "people"]
WEIGHTS = {"people": 1.0, "shapes": 2.0, "animals": 1.0}


def categorise(latents: Path, kinds: list[str | None], weights: dict[str, float | None]) -> Path:
    """Give the clips of a latents folder categories."""
    rows = tables.read_rows(latents / "latents.parquet", tables.LATENTS)
    changed = [
        row | {"category": kind, "category_weight": weights.get(kind)} for row, kind in zip(rows, kinds, strict=True)
    ]
    tables.write_rows(latents / "latents.parquet", changed, tables.LATENTS)
    return latents


def planned(latents: Path, **changes) -> data_plan.Plan:
    return data_plan.make(latents, "stiv", runs.SETTINGS, RECIPE.model_copy(update=changes), runs.TRAINING)


def test_categories_are_drawn_with_their_weights_by_any_rank_at_any_time(latents):
    data = LatentData(categorise(latents, KINDS, WEIGHTS), RECIPE)
    assert data.balance is not None and data.balance.names == ["animals", "people", "shapes"]
    order = balance.order(len(data.samples), 0, data.balance)
    assert isinstance(order, BalancedOrder)
    drawn = Counter(KINDS[order[position]] for position in range(order.block))
    assert drawn == {"animals": order.block // 4, "people": order.block // 4, "shapes": order.block // 2}
    resumed = balance.order(len(data.samples), 0, LatentData(latents, RECIPE).balance)
    assert [resumed[position] for position in range(40, 60)] == [order[position] for position in range(40, 60)]


def test_a_recipe_without_balance_draws_as_if_there_were_no_categories(latents):
    before = balance.order(10, 3, LatentData(latents, runs.RECIPE).balance)
    data = LatentData(categorise(latents, KINDS, WEIGHTS), runs.RECIPE)
    after = balance.order(len(data.samples), 3, data.balance)
    assert isinstance(after, Order) and data.balance is None
    assert [after[position] for position in range(50)] == [before[position] for position in range(50)]
    # of the order of earlier releases, drawn with them
    drawn = ",".join(str(Order(17, 5)[position]) for position in range(51))
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == "1f34d76664b01494"


def test_the_plan_has_the_categories_of_the_samples_and_counts_what_is_never_drawn(latents):
    found = planned(categorise(latents, KINDS, WEIGHTS), best_fraction=0.8, steps=2, batch=4)
    kinds = Counter(KINDS[int(number)] for number in data_plan.samples(latents, RECIPE.model_copy(
        update={"best_fraction": 0.8})).numbers)  # fmt: skip
    assert {name: one.samples for name, one in found.categories.items()} == kinds
    assert found.categories["shapes"].share == pytest.approx(0.5)
    assert found.never_drawn == sum(max(0, kinds[name] - 8 * WEIGHTS[name] / 4) for name in kinds)
    assert planned(latents, balance=None).categories == {}


def test_loader_and_plan_see_the_same_categories_where_some_clips_are_not_ok(latents):
    categorise(latents, KINDS, WEIGHTS)
    rows = tables.read_rows(latents / "latents.parquet", tables.LATENTS)
    lost = rows[0] | {"clip": "clip-0-x", "status": "failed", "reason": "timeout", "shard": None, "row": None}
    tables.write_rows(latents / "latents.parquet", [lost | {"category": "zebras"}, *rows], tables.LATENTS)
    data = LatentData(latents, RECIPE)
    assert data.balance is not None
    assert data.balance.counts == {name: one.samples for name, one in planned(latents).categories.items()}
    assert "zebras" not in data.balance.names


@pytest.mark.parametrize(
    "kinds, weights",
    [([None] * 10, WEIGHTS), ([*KINDS[:9], None], WEIGHTS)],
    ids=["none", "one-without"],
)
def test_latents_without_categories_are_refused_at_the_door_and_by_the_loader(latents, kinds, weights):
    categorise(latents, kinds, weights)
    for refused in (planned, lambda folder: LatentData(folder, RECIPE)):
        with pytest.raises(ValueError, match=r"balance is category, but .*categories\.weights .*balance: null"):
            refused(latents)


def test_latents_of_an_earlier_release_are_refused_only_where_they_are_balanced(latents):
    table = pq.read_table(latents / "latents.parquet").drop_columns(list(balance.COLUMNS))
    pq.write_table(table, latents / "latents.parquet")
    assert len(LatentData(latents, runs.RECIPE).samples) == 10
    with pytest.raises(ValueError, match="balance is category"):
        LatentData(latents, RECIPE)


@pytest.mark.parametrize("weights", [WEIGHTS | {"people": None}, None], ids=["no-weight", "two-weights"])
def test_a_category_without_one_weight_is_refused(latents, weights):
    categorise(latents, KINDS, weights or WEIGHTS)
    if weights is None:
        rows = tables.read_rows(latents / "latents.parquet", tables.LATENTS)
        rows[0]["category_weight"] = 5.0
        tables.write_rows(latents / "latents.parquet", rows, tables.LATENTS)
    with pytest.raises(ValueError, match="category people has no weight, or several"):
        LatentData(latents, RECIPE)


def test_the_record_of_a_balanced_run_has_the_categories_of_its_samples(latents, tmp_path, prepare):
    run: Run = prepare(tmp_path / "work", categorise(latents, KINDS, WEIGHTS), recipe=RECIPE)
    plan = data_plan.make(latents, run.recipe_name, run.model, run.recipe, run.training)
    training_set.write(run, plan, tmp_path)
    data = LatentData(latents, run.recipe)
    recorded = balance.read(tmp_path / training_set.SAMPLES, np.arange(10), only_ok=False)
    assert data.balance is not None and recorded.groups.tolist() == data.balance.groups.tolist()
    assert recorded[::2] == data.balance[::2]
