"""The loop on real ranks: what it does about bad numbers, and what it refuses. Interrupted: test_resumed_runs.py."""

import os

import pytest
import torch
from safetensors.torch import load_file

from stiv_model.latents import data_plan
from stiv_model.training.run_files import LOSSES
from tests.stiv_model.runs import RECIPE, TRAINING, incidents, poison, prepare, table


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.long)])
def test_one_number_that_is_none_never_reaches_the_weights_and_its_clip_is_named(
    tmp_path, latents, forkserver, precision
):
    poison(latents, 1, [2])
    work = tmp_path / "poisoned"
    forkserver.finish(work, prepare(work, latents, training=TRAINING.model_copy(update={"precision": precision})))
    found = incidents(work)
    assert found
    assert all(one["bad"] == ["clip-1-2"] and "clip-1-2" in one["clips"] for one in found)
    for name, weight in load_file(work / "weights/model.safetensors").items():
        assert weight.isfinite().all(), name


def test_a_run_that_goes_bad_again_and_again_goes_back_three_times_and_then_stops(tmp_path, latents, forkserver):
    poison(latents, 0, [1, 2, 3, 4, 5])
    poison(latents, 1, [0, 1, 2, 3])
    work = tmp_path / "bad"
    recipe = RECIPE.model_copy(update={"steps": 60, "batch": 2})  # every tenth clip is good
    attempt = forkserver.start(work, prepare(work, latents, recipe))
    assert attempt.wait() == [1, 1]
    assert "incidents.jsonl" in attempt.log.read_text()
    returns = [one for one in incidents(work) if "back_to" in one]
    named = {clip for one in incidents(work) for clip in one.get("bad", [])}
    assert named <= {f"clip-0-{row}" for row in range(1, 6)} | {f"clip-1-{row}" for row in range(4)}
    assert named
    assert len(returns) <= 3
    assert not (work / "weights").exists()


@pytest.mark.parametrize(
    "changes",
    [{"ranks": 1}, pytest.param({"sequence_ranks": 2}, marks=pytest.mark.long)],
    ids=["one rank", "two that share each sequence"],
)
def test_other_ranks_learn_what_two_ranks_learn(tmp_path, latents, forkserver, changes):
    works = {name: tmp_path / name for name in ("two", "others")}
    for work, how in zip(works.values(), ({}, changes), strict=True):
        forkserver.finish(work, prepare(work, latents, training=TRAINING.model_copy(update=how)))
    two, others = ([float(row[1]) for row in table(work, LOSSES)] for work in works.values())
    assert others == pytest.approx(two, rel=1e-4)
    two, others = (load_file(work / "weights/model.safetensors") for work in works.values())
    for name, weight in others.items():
        torch.testing.assert_close(weight, two[name], atol=2e-4, rtol=1e-3)


def test_a_batch_that_the_ranks_cannot_share_is_refused():
    with pytest.raises(ValueError, match=r"batch 5 .* multiple of 2"):
        data_plan.micro_batch(RECIPE.model_copy(update={"batch": 5}), TRAINING)


def test_frames_that_the_ranks_of_a_sequence_cannot_share_are_refused(settings):
    training = TRAINING.model_copy(update={"sequence_ranks": 2})
    with pytest.raises(ValueError, match=r"\b3 temporal tokens.*training\.sequence_ranks 2"):
        data_plan.check("t2v", RECIPE.model_copy(update={"frames": 6}), settings, training)


def test_more_ranks_than_cores_are_refused(settings, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    with pytest.raises(ValueError, match=r"training\.ranks is 2, .*\b1 core"):
        data_plan.check("stiv", RECIPE, settings, TRAINING)


def test_frames_that_the_temporal_patch_does_not_divide_are_refused(settings):
    with pytest.raises(ValueError, match=r"train\.t2v\.frames is 3, .*model\.temporal_patch is 2"):
        data_plan.check("t2v", RECIPE.model_copy(update={"frames": 3}), settings, TRAINING)
