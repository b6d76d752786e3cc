"""The condition matrix of a model of no training, made, killed and shown."""

import json
from pathlib import Path

import pytest
import torch

from flows.params import load_params
from stiv_model.network.transformer import StivTransformer
from stiv_model.weights import files
from tasks.generation import matrix
from tasks.generation.videos import load
from tasks.pages import matrix_page

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
SETTINGS = PARAMS.evaluation.model_copy(
    update={"matrix": PARAMS.evaluation.matrix.model_copy(update={"videos": 2, "scales": (2.0,)})}
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The pipeline of a model of no training, and what came of it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("matrix")
    files.save(
        folder / "weights", StivTransformer(PARAMS.model, is_video=True).state_dict().items(), PARAMS.model, True
    )
    sampler = PARAMS.sampler.model_copy(update={"steps": 1})
    pipeline = load(folder / "weights", PARAMS.vae, PARAMS.text, PARAMS.latents, sampler, "float32", "cpu")
    scenes = matrix.shape_scenes(SETTINGS, pipeline.defaults, PARAMS.corpus)
    told = {"model": {"model.safetensors": "0" * 64}}
    return (
        pipeline,
        scenes,
        told,
        folder / "out",
        matrix.make_matrix(pipeline, scenes, folder / "out", told, SETTINGS, "cpu"),
    )


def test_every_condition_is_accounted_for(made):
    _, _, _, out, content = made
    assert matrix.given_frames("interpolation", 10) == (0, 9)
    assert json.loads((out / matrix.MATRIX).read_text()) == json.loads(json.dumps(content))
    cells = content["cells"]
    assert len(cells) == 5 * 2 * 3
    measured = [one for one in cells if one["status"] == "ok"]
    without = [one for one in cells if one["status"] == "means_nothing"]
    assert len(measured) + len(without) == len(cells)
    assert all(one["n"] == 2 and 0 <= one["match"] <= 1 for one in measured)
    assert all(one["untrained"] is None for one in cells)  # nobody knows how it was trained
    assert {one["psnr"] is None for one in measured if one["mode"] == "T2V"} == {True}
    pictures = {path.stem for path in out.glob("*.png")}
    assert pictures == {one["name"] for one in measured if "same_as" not in one}


@pytest.mark.long
def test_a_matrix_that_was_killed_goes_on_and_is_the_same(made, tmp_path, monkeypatch):
    pipeline, scenes, told, _, content = made
    make, done = matrix.make_videos, []

    def make_two(*args):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(args)
        return make(*args)

    monkeypatch.setattr(matrix, "make_videos", make_two)
    with pytest.raises(KeyboardInterrupt):
        matrix.make_matrix(pipeline, scenes, tmp_path / "out", told, SETTINGS, "cpu")
    assert not (tmp_path / "out").exists()
    done.clear()
    monkeypatch.setattr(matrix, "make_videos", lambda *args: done.append(args) or make(*args))
    assert matrix.make_matrix(pipeline, scenes, tmp_path / "out", told, SETTINGS, "cpu") == content
    assert len(done) == len(list((tmp_path / "out").glob("*.png"))) - 2


def test_the_page_shows_every_condition_and_asks_for_nothing(made):
    *_, out, content = made
    page = matrix_page.build(content, out)
    assert page.count("<figure>") == len(list(out.glob("*.png")))
    for word in ("T2V", "TI2V", "prediction", "interpolation", "upsampling", "no meaning", "there are none"):
        assert word in page
    assert "http" not in page.replace("http-equiv", "")
