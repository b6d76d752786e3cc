"""One rule says which clips a recipe trains on, and the plan, the loader and the record of a run all follow it."""

import math
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stiv_model.latents import data_plan, table_columns, training_set
from stiv_model.latents.choice import choose
from stiv_model.latents.dataset import LatentData
from stiv_model.settings import Mode, RecipeSettings
from tasks.storage import tables
from tests.stiv_model.runs import RECIPE, SETTINGS, TRAINING, describe, make_latents

SCORES = st.sampled_from([0.0, 2.5, 2.5000001, 9.0])  # few, so that many are equal
FRACTIONS = st.one_of(st.floats(0.001, 1.0), st.sampled_from([0.1, 0.3, 0.7, 1.0]))


class Row(NamedTuple):
    clip: str
    aesthetic: float
    frames: int


def recipe_of(span: int, best_fraction: float) -> RecipeSettings:
    return RECIPE.model_copy(update={"frames": span, "best_fraction": best_fraction})


def every_second(frames: int) -> tuple[Mode, ...]:
    """Frames of neighbours, or every second one: a sample spans 2 * frames - 1."""
    return tuple(Mode(clean_frames="first", stride=stride, weight=1.0) for stride in (1, 2))


@settings(deadline=None, max_examples=40)
@given(
    scores=st.lists(st.tuples(SCORES, st.integers(0, 3)), max_size=12),
    frames=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    span=st.integers(1, 9),
    best_fraction=FRACTIONS,
    shuffled=st.randoms(use_true_random=False),
)
def test_the_best_of_those_long_enough_are_taken_and_numbered_by_name(scores, frames, span, best_fraction, shuffled):
    rows = [Row(f"{number * 7}é", score, frames[shard]) for number, (score, shard) in enumerate(scores)]
    shuffled.shuffle(rows)
    long_enough, samples = choose(
        table_columns.in_order(pa.array([row.clip for row in rows], pa.large_string())),
        np.array([row.aesthetic for row in rows], float),
        np.array([row.frames for row in rows], int),
        recipe_of(span, best_fraction),
    )

    wanted = [row for row in rows if row.frames >= span]
    assert [rows[number] for number in long_enough] == sorted(wanted)
    best = sorted(wanted, key=lambda row: (-row.aesthetic, row.clip))[: math.ceil(best_fraction * len(wanted))]
    assert [rows[number] for number in samples] == sorted(best)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Latents of 11 clips of 4 frames in 3 shards, of which one is not ok, and some have the same score."""
    folder = make_latents(tmp_path_factory.mktemp("choice") / "latents", clips=(6, 4, 1))
    rows = tables.read_rows(folder / "latents.parquet", tables.LATENTS)
    lost = {"clip": "broken", "status": "failed", "reason": "timeout", "shard": None, "row": None, "aesthetic": None}
    tables.write_rows(folder / "latents.parquet", [*reversed(rows), rows[0] | lost], tables.LATENTS)
    return folder


@pytest.mark.parametrize("best_fraction", [1.0, 0.8, 0.55, 0.4])
@pytest.mark.parametrize("changes", [{"frames": 2}, {"frames": 4}, {"frames": 2, "clean_frames": every_second(2)}])
def test_plan_loader_and_record_have_the_same_clips_in_the_same_order(uneven, tmp_path, changes, best_fraction):
    recipe = RECIPE.model_copy(update=changes | {"best_fraction": best_fraction, "batch": 2})
    run = describe(recipe, TRAINING, latents=str(uneven))
    planned = data_plan.make(uneven, "stiv", SETTINGS, recipe, TRAINING)
    samples = LatentData(uneven, recipe).samples
    loaded = [sample.clip for sample in samples]
    training_set.write(run, planned, tmp_path)
    recorded = pq.read_table(tmp_path / training_set.SAMPLES)["clip"].to_pylist()
    assert loaded == recorded
    assert samples.sha256 == data_plan.samples(uneven, recipe).sha256
    data_plan.check_run(planned, run, TRAINING.ranks, len(samples), samples.sha256)
    assert len(loaded) == math.ceil(best_fraction * 11)


def test_where_the_plan_finds_no_clip_long_enough_the_loader_finds_none_either(uneven):
    recipe = RECIPE.model_copy(update={"frames": 4, "clean_frames": every_second(4)})
    with pytest.raises(ValueError, match=r"has 0 samples for it, of 12 clips .*too_few_frames 11"):
        data_plan.make(uneven, "stiv", SETTINGS, recipe, TRAINING)
    with pytest.raises(ValueError, match=r"clips of 4 latent frames, and the recipe needs 7: nothing to train on"):
        LatentData(uneven, recipe)
