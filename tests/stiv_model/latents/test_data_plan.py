"""What the plan counts, what it refuses, and that the loader finds the same."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.params import load_params
from stiv_model.latents import data_plan
from stiv_model.latents.dataset import LatentData
from stiv_model.latents.shard_files import write
from stiv_model.settings import Encoders, LearnedSettings, Run
from tasks.storage import tables
from tests.stiv_model.runs import MADE_BY, load

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
RECIPE = PARAMS.train["stiv"].model_copy(update={"frames": 4, "batch": 4, "steps": 6, "best_fraction": 1.0})
LEARNED = LearnedSettings(kind="learned", rows=4, columns=3, num_temporal=2, std=0.5)
TRAINING = PARAMS.training.model_copy(update={"ranks": 2, "accumulation": 1})


@pytest.fixture
def make(latents, settings):
    """Plan for the latents, with some settings of the recipe changed."""

    def made(**changes) -> data_plan.Plan:
        return data_plan.make(latents, "stiv", settings, RECIPE.model_copy(update=changes), TRAINING)

    return made


@pytest.fixture
def edit(latents):
    """Change the rows of the table: a function of one row and its number that returns rows."""

    def edited(change) -> None:
        rows = tables.read_rows(latents / "latents.parquet", tables.LATENTS)
        changed = [new for number, row in enumerate(rows) for new in change(number, row)]
        tables.write_rows(latents / "latents.parquet", changed, tables.LATENTS)

    return edited


def only(number: int, **values):
    """Change the row with this number."""
    return lambda at, row: [row | values if at == number else row]


def another(**values):
    """Add a row behind the first."""
    return lambda at, row: [row, row | values] if at == 0 else [row]


def reshape(latents, name: str, frames: int, rows: int) -> None:
    tensors = load(latents / name)
    tensors["latents"] = tensors["latents"][:, :frames, :, :rows]
    write(latents / name, tensors, MADE_BY)


def a_run(latents, settings) -> Run:
    nothing = dict.fromkeys(("parent", "parent_sha256", "temporal_parent", "temporal_parent_sha256"))
    return Run(
        recipe_name="stiv",
        latents=str(latents),
        latents_sha256="",
        encoders=Encoders(vae_sha256="v", text_sha256="t"),
        **nothing,
        model=settings,
        recipe=RECIPE,
        training=TRAINING,
    )


def hash_names(names: list[str]) -> str:
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


@pytest.mark.parametrize("best_fraction", [1.0, 0.75, 0.55, 0.4])
def test_the_loader_finds_the_samples_that_the_plan_counts(latents, settings, make, best_fraction):
    planned = make(best_fraction=best_fraction)
    data = LatentData(latents, RECIPE.model_copy(update={"best_fraction": best_fraction}))
    assert (planned.samples, planned.ok) == (len(data.samples), data.given)
    data_plan.check_run(planned, a_run(latents, settings), 2, len(data.samples), data.samples.sha256)


def test_every_clip_is_a_sample_or_is_dropped_for_a_reason(make, edit):
    lost = {"shard": None, "row": None, "aesthetic": None}
    edit(another(clip="a", status="failed", reason="timeout", **lost))
    edit(another(clip="b", status="failed", reason="timeout", **lost))
    edit(another(clip="c", status="rejected", reason="too_dark", **lost))
    planned = make(best_fraction=0.7)
    assert (planned.clips, planned.ok, planned.rejected, planned.failed) == (13, 10, 1, 2)
    assert planned.dropped == {"failed: timeout": 2, "rejected: too_dark": 1, "outside_best_fraction": 3}
    assert planned.samples == 7


def test_epochs_run_on_inside_batches(make):
    planned = make(steps=6)
    assert (planned.steps_per_epoch, planned.epochs, planned.never_drawn) == (2.5, 2.4, 0)
    assert make(steps=2).never_drawn == 2
    assert planned.micro_batch * planned.ranks * planned.accumulation == planned.batch


def test_bytes_on_disk_are_those_of_the_files(latents, make):
    planned = make()
    assert planned.folder_bytes == sum(file.stat().st_size for file in latents.iterdir())
    assert planned.buckets[0].shard_bytes == sum(file.stat().st_size for file in latents.glob("shard-*"))


@pytest.mark.parametrize(
    "change",
    [
        only(2, status="failed"),
        only(2, status="lost", reason="nobody knows"),
        only(2, status=None),
        only(2, shard=None),
        only(2, row=None),
        only(2, aesthetic=None),
        only(2, aesthetic=float("nan")),
    ],
    ids=["no reason", "no such status", "no status", "no shard", "no row", "no score", "score is no number"],
)
def test_a_clip_that_would_be_lost_without_a_reason_is_named(make, edit, change):
    edit(change)
    with pytest.raises(ValueError, match=r"latents\.parquet: 1 .*clip-0-2.*stage latents"):
        make()


def test_a_clip_that_is_there_twice_is_refused(make, edit):
    edit(another())
    with pytest.raises(ValueError, match=r"latents\.parquet .*\b11\b.*\b10\b"):
        make()


@pytest.mark.parametrize(
    "change",
    [
        lambda at, row: [] if at == 2 else [row],
        only(2, status="failed", reason="timeout"),
        another(clip="clip-0-6", row=6),
        only(2, row=1),
        only(2, row=77),
    ],
    ids=["no row", "not ok", "one row more", "two in one place", "behind the end"],
)
def test_a_shard_that_holds_other_clips_than_the_table_is_refused(make, edit, change):
    edit(change)
    with pytest.raises(ValueError, match=r"shard-0\.safetensors .*\b6\b.*latents\.parquet"):
        make()


def test_a_shard_of_which_the_table_knows_nothing_is_refused(latents, make, edit):
    edit(lambda at, row: [row] if row["shard"] == "shard-0.safetensors" else [])
    with pytest.raises(ValueError, match=r"shard-1\.safetensors .*\b4\b.*latents\.parquet .*\b0\b"):
        make()


def test_a_missing_shard_and_one_that_is_cut_off_are_named(latents, make):
    shard = latents / "shard-1.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"shard-1\.safetensors .*\(.+\): .*stage latents"):
        make()
    shard.unlink()
    with pytest.raises(ValueError, match=r"shard-1\.safetensors .*latents\.parquet"):
        make()


def test_a_folder_without_a_table_names_the_stage(latents, make):
    (latents / "latents.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"latents\.parquet .*stage latents"):
        make()


def test_fewer_samples_than_one_batch_are_refused_with_both_numbers(make):
    with pytest.raises(ValueError, match=r"train\.stiv\.batch is 12, .*\b10 samples .*\b10 clips"):
        make(batch=12)
    with pytest.raises(ValueError, match=r"batch is 4, .*\b3 samples .*\(outside_best_fraction 7\)"):
        make(best_fraction=0.3)


def test_clips_too_short_for_the_recipe_leave_nothing_to_train_on(make):
    with pytest.raises(ValueError, match=r"\b0 samples .*\b10 clips \(too_few_frames 10\)"):
        make(frames=8)


def test_without_a_usable_clip_there_are_zero_batches(latents, make, edit):
    edit(lambda at, row: [row | {"status": "failed", "reason": "timeout", "shard": None, "row": None}])
    for shard in latents.glob("shard-*"):
        shard.unlink()
    with pytest.raises(ValueError, match=r"\b0 samples .*\b10 clips \(failed: timeout 10\)"):
        make()


def test_each_shape_is_counted_apart_and_several_are_refused(latents, make):
    reshape(latents, "shard-1.safetensors", frames=2, rows=6)
    planned = make(best_fraction=0.7)
    short, long = planned.buckets
    assert (short.frames, short.rows, short.clips, short.samples) == (2, 6, 4, 0)
    assert short.dropped == {"too_few_frames": 4}
    assert (long.frames, long.rows, long.clips, long.samples) == (4, 8, 6, 5)
    assert planned.dropped == {"too_few_frames": 4, "outside_best_fraction": 1}
    with pytest.raises(ValueError, match=r"2 x 6 x 8 \(4 clips\), 4 x 8 x 8 \(6 clips\)"):
        data_plan.check_buckets(planned)


def test_one_shape_can_be_trained_on(make):
    data_plan.check_buckets(make())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latent_channels": 8}, r"model\.latent_channels is 8, .*shard-0\.safetensors .*\b4\b"),
        ({"text_width": 16}, r"model\.text_width is 16, .*shard-0\.safetensors .*\b12\b"),
        (
            {"positions": LEARNED},
            r"model\.positions\.columns is 3, .*shard-0\.safetensors, 8 x 8, are 4 columns of tokens .*: set it to 4",
        ),
        ({"spatial_patch": 3}, r"model\.spatial_patch is 3, .*shard-0\.safetensors, 8 x 8"),
    ],
)
def test_latents_that_the_model_cannot_take_are_refused(latents, settings, changes, said):
    with pytest.raises(ValueError, match=said):
        data_plan.make(latents, "stiv", settings.model_copy(update=changes), RECIPE, TRAINING)


def test_a_plan_is_read_as_it_was_written(tmp_path, make):
    planned = make(best_fraction=0.7)
    (tmp_path / data_plan.FILE).write_text(planned.model_dump_json())
    assert data_plan.read(tmp_path) == planned


@pytest.mark.parametrize("key", ["clips", "samples", "ok", "failed"])
def test_a_plan_whose_counts_do_not_balance_is_refused(tmp_path, make, key):
    written = json.loads(make().model_dump_json())
    written[key] += 1
    (tmp_path / data_plan.FILE).write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"plan\.json .*\b\d+\b"):
        data_plan.read(tmp_path)


def test_without_a_plan_there_is_no_training(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"plan\.json"):
        data_plan.read(tmp_path)


def test_ranks_refuse_what_was_not_planned_and_name_each_difference(latents, settings, make):
    planned, run = make(), a_run(latents, settings)
    samples = LatentData(latents, RECIPE).samples
    found = len(samples), hash_names([sample.clip for sample in samples])
    data_plan.check_run(planned, run, 2, *found)
    with pytest.raises(ValueError, match=r"train\.stiv .*plan\.json.*: ranks 2, found 3"):
        data_plan.check_run(planned, run, 3, *found)
    with pytest.raises(ValueError, match="samples 10, found 9; samples_sha256"):
        data_plan.check_run(planned, run, 2, 9, hash_names(["another"]))
    with pytest.raises(ValueError, match=": samples_sha256"):
        data_plan.check_run(planned, run, 2, 10, hash_names(["another"]))
    longer = run.model_copy(update={"recipe": RECIPE.model_copy(update={"steps": 7})})
    with pytest.raises(ValueError, match="steps 6, found 7"):
        data_plan.check_run(planned, longer, 2, *found)


def test_the_door_needs_no_torch():
    script = "import sys, stiv_model.latents.data_plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
