"""`stiv views`: six views, their grid, the orbit and its record, from a model that was trained to make views."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flows.__main__ import main
from flows.command_line import describe, told
from flows.params import load_params
from stiv_model.diffusion.cameras import CAMERAS
from stiv_model.encoders.video_file import read_video
from tasks.applications import view_files

VIEWS = [*view_files.VIEWS, view_files.GRID, view_files.ORBIT, "orbit.json"]


@pytest.fixture(scope="module")
def model(named, tmp_path_factory) -> Path:
    """A pipeline folder of weights that say of themselves that they make views."""
    folder = tmp_path_factory.mktemp("views") / "model"
    shutil.copytree(named, folder)
    config = folder / "transformer/config.json"
    values = json.loads(config.read_text())
    values["trained"] = {
        **{"recipe_name": "views", "steps": 1, "frames": 8, "stride_frames": 1, "latent_height": 4, "latent_width": 4},
        **{"clean_frames": "views", "text_dropout": 1.0, "image_dropout": 0.1, "ema_decay": 0.9},
        "encoders": {"vae_sha256": "v", "text_sha256": "t"},
    }
    config.write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "object.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def made(model, picture, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "object"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out.parent)
        main(["views", "--image", str(picture), "--pipeline", str(model), "--out", str(out), "--seed", "3"])
    return out


def test_six_views_lie_beside_their_grid_the_orbit_and_its_record(made):
    assert sorted(path.name for path in made.iterdir()) == sorted(VIEWS)
    views = [np.asarray(Image.open(made / name)) for name in view_files.VIEWS]
    assert {view.shape for view in views} == {(32, 32, 3)}
    assert len(read_video(made / view_files.ORBIT)) == 1 + len(CAMERAS)
    grid = np.asarray(Image.open(made / view_files.GRID))
    assert grid.shape == (64, 64 + 96, 3)
    assert (grid[32:, 64:96] == views[3]).all()
    record = json.loads((made / "orbit.json").read_text())
    assert [(camera["elevation"], camera["azimuth"]) for camera in record["cameras"]] == list(map(tuple, CAMERAS))
    assert record["asked"]["sampler"]["guidance_scale"] == 3.5
    assert record["options"]["seed"] == 3


def test_a_checkpoint_is_sampled_as_the_table_of_views_does_it(workspace, checkpoint, picture):
    samples = load_params().samples
    words = ["views", "--image", str(picture), "--checkpoint", str(checkpoint), "--untrained"]
    for out, said, scale, steps in (
        ("a", [], samples.views_guidance_scale, samples.views_steps),
        ("b", ["--guidance-scale", "2", "--set", "sampler.steps=1"], 2.0, 1),
    ):
        main([*words, "--out", out, *said])
        asked = json.loads((Path(out) / "orbit.json").read_text())["asked"]["sampler"]
        assert (asked["guidance_scale"], asked["steps"]) == (scale, steps)


def test_again_makes_the_same_bytes(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["views", "--again", str(made / "orbit.json"), "--out", "same"])
    for name in (*view_files.VIEWS, view_files.GRID, view_files.ORBIT):
        assert (tmp_path / "same" / name).read_bytes() == (made / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", "a chair"], "--prompt is a chair, but views are made without a text: leave it out"),
        (["--num-frames", "10"], "--num-frames is 10, but there are 6 views"),
    ],
)
def test_what_views_have_no_use_for_is_refused(picture, tmp_path, words, said):
    with pytest.raises(SystemExit) as stopped:
        main(["views", "--image", str(picture), "--out", str(tmp_path / "out"), *words])
    assert said in str(stopped.value)


def test_what_the_help_says_is_not_taken_is_refused(workspace):
    texts = told(describe("flows.commands.views", "views"))
    not_taken = [name for name, text in texts.items() if text.startswith("Not taken: ")]
    assert len(not_taken) == 6
    for name in not_taken:
        with pytest.raises(SystemExit, match=rf"--{name.replace('_', '-')} is 1, but .*: leave it out$"):
            main(["views", "--image", "a.png", "--out", "out", f"--{name.replace('_', '-')}", "1"])


def test_a_folder_with_other_files_is_left_alone(picture, model, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        main(["views", "--image", str(picture), "--pipeline", str(model), "--out", str(tmp_path)])
    assert "is not empty, and has no orbit.mp4 of earlier views" in str(stopped.value)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_model_that_never_learned_views_says_which_recipe_would(picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["views", "--image", str(picture), "--out", "out"])  # by the model that comes with the package
    said = str(stopped.value)
    assert "not views of an object: that needs a training with clean_frames: views, as recipe views has it" in said
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_given_views_come_out_as_they_went_in(model):
    from stiv_model.pipeline.pipeline import StivPipeline

    pipe = StivPipeline.from_pretrained(str(model))
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    asked = {"num_frames": 8, "stride_frames": 1, "output_type": "latent", "return_dict": False}
    for scale, prompts in ((1.0, [""]), (3.5, ["", "", "", ""])):
        (one,) = pipe(prompts, frames={0: image, 1: image}, guidance="joint", guidance_scale=scale, **asked)
        (other,) = pipe(prompts, frames={0: image, 1: image}, guidance="joint", guidance_scale=scale, **asked)
        assert torch.equal(one[:, 0], one[:, 1])
        assert torch.equal(one[:, :2], other[:, :2])  # whatever the noise was
        assert not torch.equal(one[:, 2:], other[:, 2:])
