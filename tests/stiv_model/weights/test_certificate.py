import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flows.params import load_params
from stiv_model.latents import data_plan
from stiv_model.network.transformer import StivTransformer
from stiv_model.process_exit import failure
from stiv_model.settings import Encoders, Run
from stiv_model.weights import certificate, files, warm_start
from stiv_model.weights.certificate import CERTIFICATE, START
from stiv_model.weights.metadata import WEIGHTS, Trained
from tasks.training.launch import environment

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
TRAINED = Trained(
    recipe_name="t2i",
    steps=7,
    frames=1,
    stride_frames=0,
    latent_height=8,
    latent_width=8,
    clean_frames="none",
    text_dropout=0.1,
    image_dropout=0.0,
    ema_decay=0.9,
    encoders=Encoders(vae_sha256="v", text_sha256="t"),
)


@pytest.fixture
def work(lively, settings, latents, tmp_path) -> Path:
    """The folder of a run that goes from T2I to T2V, with its start made."""
    t2i = tmp_path / "t2i"
    files.save(t2i, lively(is_video=False).state_dict().items(), settings, is_video=False, trained=TRAINED)
    run = Run(
        recipe_name="t2v",
        latents=str(latents),
        latents_sha256="",
        encoders=Encoders(vae_sha256="v", text_sha256="t"),
        parent=str(t2i),
        parent_sha256=certificate.sha256(t2i / WEIGHTS),
        temporal_parent=None,
        temporal_parent_sha256=None,
        model=settings,
        recipe=PARAMS.train["t2v"],
        training=PARAMS.training.model_copy(update={"ranks": 1}),
    )
    folder = tmp_path / "t2v.partial"
    folder.mkdir()
    (folder / "run.json").write_text(run.model_dump_json())
    warm_start.make_start(folder)
    return folder


def start_again(work: Path, **changes) -> StivTransformer:
    run = Run.model_validate_json((work / "run.json").read_bytes()).model_copy(update=changes)
    model = StivTransformer(run.model, is_video=True)
    warm_start.load_start(run, work / START, lambda name, weight: model.get_parameter(name).data.copy_(weight))
    return model


def test_a_run_starts_from_the_weights_that_were_certified(work):
    start = load_file(work / START / WEIGHTS)
    for name, weight in start_again(work).state_dict().items():
        assert torch.equal(weight, start[name]), name
    assert not (work / f"{START}.tmp").exists()


def test_the_same_run_makes_the_same_start(work):
    before = certificate.sha256(work / START / WEIGHTS)
    (work / START).rename(work / "before")
    warm_start.make_start(work)
    assert certificate.sha256(work / START / WEIGHTS) == before


def test_no_run_starts_without_a_certificate(work):
    (work / START / CERTIFICATE).unlink()
    with pytest.raises(ValueError, match=r"certificate\.json .*stiv train"):
        start_again(work)


def test_the_ranks_refuse_to_train_without_a_certificate(work):
    (work / START / CERTIFICATE).unlink()
    launcher = [sys.executable, "-m", "stiv_model.distributed.local_ranks", "1"]
    run = Run.model_validate_json((work / "run.json").read_bytes())
    command = [*launcher, "-m", "stiv_model.training.train", str(work)]
    planned = data_plan.make(Path(run.latents), run.recipe_name, run.model, run.recipe, run.training)
    (work / data_plan.FILE).write_text(planned.model_dump_json())
    done = subprocess.run(command, env=environment(run.training), capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "no training starts from" in failure(work).line
    assert done.stderr.splitlines()[-1] == "rank 0 of 1 ended with exit code 1"
    assert not (work / "losses.tsv").exists()


def test_starting_weights_with_a_byte_flipped_are_refused(work):
    path = work / START / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"certificate\.json .*sha256 \w+ .*\bmodel\.safetensors"):
        start_again(work)


@pytest.mark.parametrize("role", ["weights", "temporal"])
def test_a_certificate_of_another_parent_is_refused(work, role):
    names = ("parent", "parent_sha256") if role == "weights" else ("temporal_parent", "temporal_parent_sha256")
    with pytest.raises(ValueError, match=rf"\b{role} parent: .*\b00ff in run\.json \(checkpoints/other\)"):
        start_again(work, **dict(zip(names, ("checkpoints/other", "00ff"), strict=True)))


def test_a_certificate_for_another_model_is_refused(work, settings):
    larger = settings.positions.model_copy(update={"spatial_scale": 0.5})
    with pytest.raises(ValueError, match=r"\(model\.positions\.spatial_scale 1\.0 there, 0\.5 here\)"):
        start_again(work, model=settings.model_copy(update={"positions": larger}))


def test_a_certificate_that_states_a_failed_check_is_refused(work):
    path = work / START / CERTIFICATE
    content = json.loads(path.read_text())
    content["checks"][-1]["measured"] = 0.5
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"one repeated frame.*\d, tolerance"):
        start_again(work)


def test_a_parent_that_changed_since_the_run_was_described_is_refused_before_there_is_a_start(work, tmp_path):
    (work / START).rename(work / "before")
    t2i = tmp_path / "t2i"
    tensors = {name: weight.clone() for name, weight in load_file(t2i / WEIGHTS).items()}
    tensors["mask_token"] += 1
    save_file(tensors, t2i / "new", {"averaged": TRAINED.averaged})
    (t2i / "new").rename(t2i / WEIGHTS)
    with pytest.raises(ValueError, match="weights parent"):
        warm_start.make_start(work)
    assert not (work / START).exists()
