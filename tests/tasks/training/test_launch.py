from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flows.params import load_params
from stiv_model.errors.failures import PermanentError
from stiv_model.network.transformer import StivTransformer
from stiv_model.process_exit import failure
from stiv_model.settings import Encoders, ModelSettings
from stiv_model.weights import files
from stiv_model.weights.metadata import WEIGHTS, Trained
from tasks.operations.task_runs import call
from tasks.storage import atomic
from tasks.training import launch

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
SMALL = PARAMS.model.model_copy(update={"width": 32, "depth": 1, "heads": 2})


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    folder = tmp_path / "latents"
    folder.mkdir()
    (folder / "latents.parquet").write_bytes(b"a table that is only hashed here")
    null = {"tokens": torch.zeros(1, 2, 3), "mask": torch.zeros(1, 2), "pooled": torch.zeros(1, 3)}
    save_file(null, folder / "null_text.safetensors", metadata={"vae_sha256": "v", "text_sha256": "t"})
    return folder


def checkpoint(folder: Path, model: ModelSettings, frames: int, vae: str = "v", text: str = "t") -> Path:
    trained = Trained(
        recipe_name=folder.name,
        steps=3,
        frames=frames,
        stride_frames=3 if frames > 1 else 0,
        latent_height=8,
        latent_width=8,
        clean_frames="none",
        text_dropout=0.1,
        image_dropout=0.0,
        ema_decay=0.9,
        encoders=Encoders(vae_sha256=vae, text_sha256=text),
    )
    made = StivTransformer(model, is_video=frames > 1)
    files.save(folder, made.state_dict().items(), model, made.is_video, trained)
    return folder


def describe(latents: Path, parents: dict, model: ModelSettings = SMALL):
    return launch.describe_run(latents, parents, "t2v", model, PARAMS.train["t2v"], PARAMS.training, PARAMS.monitoring)


def test_a_run_names_its_parents_with_their_hashes(latents: Path, tmp_path: Path):
    torch.manual_seed(0)
    parents = {
        "weights": checkpoint(tmp_path / "t2i-512", SMALL, 1),
        "temporal": checkpoint(tmp_path / "t2v-256", SMALL, 4),
    }
    run = describe(latents, parents)
    assert run.parents == {
        role: (str(folder), atomic.sha256_file(folder / WEIGHTS)) for role, folder in parents.items()
    }


def test_a_run_without_parents_names_none(latents: Path):
    run = describe(latents, {})
    assert run.parents == {}
    assert run.parent is None


def test_a_parent_of_another_size_is_refused_before_anything_runs(latents: Path, tmp_path: Path):
    parent = checkpoint(tmp_path / "t2i", SMALL, 1)
    with pytest.raises(ValueError, match="depth 1 there, 2 here"):
        describe(latents, {"weights": parent}, SMALL.model_copy(update={"depth": 2}))


def test_a_temporal_parent_that_is_an_image_model_is_refused_before_anything_runs(latents: Path, tmp_path: Path):
    parent = checkpoint(tmp_path / "t2i", SMALL, 1)
    with pytest.raises(ValueError, match="--temporal-init"):
        describe(latents, {"weights": parent, "temporal": parent})


def test_a_parent_without_weights_is_named(latents: Path, tmp_path: Path):
    parent = checkpoint(tmp_path / "t2i", SMALL, 1)
    (parent / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"t2i/model\.safetensors"):
        describe(latents, {"weights": parent})


def test_what_cannot_be_handed_on_leaves_no_start_and_says_why(latents: Path, tmp_path: Path):
    parent = checkpoint(tmp_path / "t2i", SMALL, 1)
    run = describe(latents, {"weights": parent})
    work = atomic.open_workdir(tmp_path / "t2v", run.model_dump())
    (parent / WEIGHTS).write_bytes(b"overwritten")
    with pytest.raises(RuntimeError) as failed:
        launch.make_start(run, work)
    assert str(failed.value) == failure(work).line, "the last word is the program's own, and nothing else"
    assert "exit code" not in str(failed.value)
    assert not (work / "start").exists()


@pytest.mark.parametrize(
    ("other", "kind"), [({"vae": "w"}, "VAE w, .* by the VAE v"), ({"text": "u"}, "text encoder u, .* text encoder t")]
)
def test_a_parent_trained_on_latents_of_another_encoder_is_refused(latents: Path, tmp_path: Path, other, kind):
    parent = checkpoint(tmp_path / "t2i", SMALL, 1, **other)
    with pytest.raises(ValueError, match=rf"{parent} .*{kind}"):
        describe(latents, {"weights": parent})


def test_a_run_says_which_encoders_made_its_latents(latents: Path):
    assert describe(latents, {}).encoders == Encoders(vae_sha256="v", text_sha256="t")


def test_a_run_that_validates_is_refused_where_its_latents_do_not_say_where_the_encoders_are(latents: Path):
    watched = PARAMS.training.model_copy(update={"validation_steps": 2})
    with pytest.raises(FileNotFoundError, match=rf"{latents}/encoders\.json .*training\.validation_steps"):
        launch.describe_run(latents, {}, "t2v", SMALL, PARAMS.train["t2v"], watched, PARAMS.monitoring)


def test_what_is_shown_leads_into_the_work_and_stays_when_that_is_gone(tmp_path: Path):
    inside, shown = tmp_path / "work" / "shown", tmp_path / "reports" / "t2v"
    (tmp_path / "work").mkdir()
    shown.mkdir(parents=True)
    (shown / "of an earlier run").touch()
    for _ in range(2):  # a killed run is linked again
        launch._link(shown, inside)
        (inside / "events").write_text("step 1")
        assert [path.name for path in shown.iterdir()] == ["events"]
    for _ in range(2):  # killed after the first
        launch._move_in_place(inside, shown)
        assert not shown.is_symlink()
        assert (shown / "events").read_text() == "step 1"


def test_gpus_that_are_not_there_are_refused_before_anything_is_made(latents: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    run = describe(latents, {})
    for ranks, nodes, refused in ((1, 1, False), (2, 1, True), (2, 2, False)):
        training = run.training.model_copy(update={"device": "cuda", "ranks": ranks, "nodes": nodes})
        if refused:
            with pytest.raises(ValueError, match=r"training\.ranks 2, .* 1 GPUs .*training\.device: cpu"):
                launch._check_device(training)
        else:
            launch._check_device(training)


RANK = """import sys, pathlib
from stiv_model.process_exit import noting_failure
work = pathlib.Path(sys.argv[1])
(work / "attempts").open("a").write("1")
with noting_failure(work):
    raise {}
"""


@pytest.mark.parametrize(
    ("error", "attempts", "kind"),
    [
        ("FloatingPointError('three bad steps in a row')", 1, PermanentError),
        ("FileNotFoundError(2, 'no such file', 'latents.parquet')", 1, PermanentError),
        ("ConnectionResetError(104, 'connection closed by peer')", 3, RuntimeError),
    ],
)
def test_ranks_start_again_only_where_that_may_help(latents, tmp_path, monkeypatch, error, attempts, kind):
    monkeypatch.setattr(launch.run_ranks, "retry_delay_seconds", 0)
    (tmp_path / "rank.py").write_text(RANK.format(error))
    run = describe(latents, {})
    launcher = f"{{python}} {tmp_path / 'rank.py'} {{work}}"
    run = run.model_copy(update={"training": run.training.model_copy(update={"launcher": launcher})})
    work = atomic.open_workdir(tmp_path / "t2v", {})
    with pytest.raises(RuntimeError) as failed:
        call(launch.run_ranks, run, work)
    assert len((work / "attempts").read_text()) == attempts
    assert type(failed.value) is kind
    assert str(failed.value) == failure(work).line
