import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from stiv_model import plan
from stiv_model.settings import OptimizerSettings, RecipeSettings, Run, TrainingSettings
from tasks import manifest
from tasks.training import environment

RECIPE = RecipeSettings(
    frames=4,
    steps=12,
    batch=4,
    learning_rate=1e-3,
    warmup_steps=2,
    mask_ratio=0.5,
    clean_frames="first",
    text_dropout=0.2,
    image_dropout=0.2,
    best_fraction=1.0,
)
TRAINING = TrainingSettings(
    ranks=2,
    nodes=1,
    launcher="{python} -m torch.distributed.run --standalone --nproc_per_node {ranks_per_node} "
    "-m stiv_model.train {work}",
    sequence_ranks=1,
    device="cpu",
    precision="float32",
    accumulation=1,
    activation_checkpointing=False,
    offload="none",
    compile=False,
    timestep_density="logit_normal",
    timestep_shift=1.0,
    temporal_mask_ratio=0.0,
    clean_frame_loss=False,
    outlier_sigmas=6.0,
    hang_seconds=60.0,
    checkpoint_seconds=1000,
    checkpoint_steps=2,
    keep_checkpoints=2,
    keep_every_steps=0,
    seed=3,
    optimizer=OptimizerSettings(kind="adamw", beta1=0.9, beta2=0.99, weight_decay=0.0, clip_norm=1.0, ema_decay=0.9),
)


def start(work, latents, settings, recipe=RECIPE, training=TRAINING) -> subprocess.Popen:
    work.mkdir(exist_ok=True)
    run = Run(
        recipe_name="stiv",
        latents=str(latents),
        latents_sha256="",
        parent=None,
        parent_sha256=None,
        temporal_parent=None,
        temporal_parent_sha256=None,
        model=settings,
        recipe=recipe,
        training=training,
    )
    (work / "run.json").write_text(json.dumps(run.model_dump()))
    (work / plan.FILE).write_text(plan.make(latents, "stiv", settings, recipe, training).model_dump_json())
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(training.ranks),
    ]
    return subprocess.Popen(
        [*launcher, "-m", "stiv_model.train", str(work)],
        env=environment(training),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


def curve(work):
    return [line.split("\t")[:4] for line in (work / "losses.tsv").read_text().splitlines()]


@pytest.fixture
def undisturbed(tmp_path, latents, settings):
    finish(start(tmp_path / "undisturbed", latents, settings))
    return tmp_path / "undisturbed"


def test_a_run_killed_anywhere_ends_with_the_same_losses_and_weights(tmp_path, latents, settings, undisturbed):
    work = tmp_path / "killed"
    process = start(work, latents, settings)
    at = random.randint(2, 10)
    while process.poll() is None and len(curve(work) if (work / "losses.tsv").exists() else []) <= at:
        time.sleep(0.01)
    process.kill()  # the launcher alone: its ranks must not live on
    process.communicate()
    assert not (work / "weights").exists(), "the run ended before it was killed"

    finish(start(work, latents, settings))
    assert curve(work) == curve(undisturbed)
    wanted = load_file(undisturbed / "weights/model.safetensors")
    for name, weight in load_file(work / "weights/model.safetensors").items():
        assert torch.equal(weight, wanted[name]), name

    # and with its newest checkpoint damaged, it goes on from the one before
    shutil.rmtree(work / "weights")
    newest = sorted((work / "checkpoints").glob("step-*"))[-1]
    victim = next(newest.glob("rank-*.safetensors"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    assert "damaged" in finish(start(work, latents, settings))
    assert curve(work) == curve(undisturbed)


def test_one_rank_learns_what_two_ranks_learn(tmp_path, latents, settings, undisturbed):
    training = TRAINING.model_copy(update={"ranks": 1})
    finish(start(tmp_path / "alone", latents, settings, training=training))
    for one, two in zip(curve(tmp_path / "alone")[1:], curve(undisturbed)[1:], strict=True):
        assert float(one[1]) == pytest.approx(float(two[1]), rel=1e-4)
    wanted = load_file(undisturbed / "weights/model.safetensors")
    for name, weight in load_file(tmp_path / "alone/weights/model.safetensors").items():
        torch.testing.assert_close(weight, wanted[name], atol=2e-4, rtol=1e-3)


def poison(latents, shard, rows):
    """Make latents not a number, as a damaged encoder would: the table has their hash."""
    path = latents / f"shard-{shard}.safetensors"
    tensors = load_file(path)
    tensors["latents"][rows] = float("nan")
    save_file(tensors, path, metadata={"vae_sha256": "v", "text_sha256": "t"})
    table = pq.read_table(latents / "latents.parquet").to_pylist()
    for row in table:
        if row["shard"] == path.name:
            row["sha256"] = hashlib.sha256(tensors["latents"][row["row"]].numpy().tobytes()).hexdigest()
    manifest.write_rows(latents / "latents.parquet", table, manifest.LATENTS)


def incidents(work):
    return [json.loads(line) for line in (work / "incidents.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.long)])
def test_one_number_that_is_none_never_reaches_the_weights_and_its_clip_is_named(
    tmp_path, latents, settings, precision
):
    poison(latents, 1, [2])
    training = TRAINING.model_copy(update={"precision": precision})
    finish(start(tmp_path / "poisoned", latents, settings, training=training))
    found = incidents(tmp_path / "poisoned")
    assert found
    assert all(one["bad"] == ["clip-1-2"] and "clip-1-2" in one["clips"] for one in found)
    for name, weight in load_file(tmp_path / "poisoned/weights/model.safetensors").items():
        assert weight.isfinite().all(), name


def test_a_run_that_goes_bad_again_and_again_goes_back_three_times_and_then_stops(tmp_path, latents, settings):
    poison(latents, 0, [1, 2, 3, 4, 5])
    poison(latents, 1, [0, 1, 2, 3])
    recipe = RECIPE.model_copy(update={"steps": 60, "batch": 2})  # every tenth clip is good
    process = start(tmp_path / "bad", latents, settings, recipe=recipe)
    out, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "incidents.jsonl" in out
    returns = [one for one in incidents(tmp_path / "bad") if "back_to" in one]
    named = {clip for one in incidents(tmp_path / "bad") for clip in one.get("bad", [])}
    assert named <= {f"clip-0-{row}" for row in range(1, 6)} | {f"clip-1-{row}" for row in range(4)}
    assert named
    assert len(returns) <= 3
    assert not (tmp_path / "bad/weights").exists()


def test_a_batch_that_the_ranks_cannot_share_is_refused():
    with pytest.raises(ValueError, match=r"batch 5 .* multiple of 2"):
        plan.micro_batch(RECIPE.model_copy(update={"batch": 5}), TRAINING)


def test_frames_that_the_ranks_of_a_sequence_cannot_share_are_refused(settings):
    training = TRAINING.model_copy(update={"sequence_ranks": 2})
    with pytest.raises(ValueError, match=r"3 temporal tokens, which training\.sequence_ranks 2"):
        plan.check("t2v", RECIPE.model_copy(update={"frames": 6}), settings, training)


def test_more_ranks_than_cores_are_refused(settings, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    with pytest.raises(ValueError, match=r"training\.ranks is 2, but this process may use 1 core"):
        plan.check("stiv", RECIPE, settings, TRAINING)


def test_frames_that_the_temporal_patch_does_not_divide_are_refused(settings):
    with pytest.raises(ValueError, match=r"train\.t2v\.frames is 3, but model\.temporal_patch is 2"):
        plan.check("t2v", RECIPE.model_copy(update={"frames": 3}), settings, TRAINING)


@pytest.mark.long
def test_two_ranks_that_share_each_sequence_learn_what_two_of_their_own_do(tmp_path, latents, settings, undisturbed):
    training = TRAINING.model_copy(update={"sequence_ranks": 2})
    finish(start(tmp_path / "shared", latents, settings, training=training))
    for one, two in zip(curve(tmp_path / "shared")[1:], curve(undisturbed)[1:], strict=True):
        assert float(one[1]) == pytest.approx(float(two[1]), rel=1e-4)
