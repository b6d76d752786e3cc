"""`stiv sample`: by which model, with whose settings, and what a person sees who asks for what cannot be."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.__main__ import main
from flows.commands import named_model
from flows.params import load_params
from stiv_model.encoders.video_file import read_video

PROMPT = ("--prompt", "a red circle moves left", "--out", "made/red.mp4")
MADE = Path("made/red.mp4")


def refused(*words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["sample", *PROMPT, *words])
    assert not MADE.exists() and "\n" not in str(stop.value.code)
    return str(stop.value.code)


def test_a_pipeline_folder_makes_a_video_with_its_own_size_and_sampler_on_the_machine_s_device(
    workspace, named, capsys
):
    params = Path("params.yaml")
    size = load_params(params).latents
    params.write_text(params.read_text().replace(f"  height: {size.height} ", f"  height: {2 * size.height} "))
    assert load_params(params).latents.height == 2 * size.height
    main(["sample", *PROMPT, "--pipeline", str(named), "--set", "devices.sampling=cpu", "samples.precision=bfloat16"])
    told = capsys.readouterr()
    assert told.out == f"{MADE}\n"
    assert "2/2" in told.err, "sampling steps of the folder"
    assert read_video(MADE).shape == (size.frames, size.height, size.width, 3)


def test_a_picture_becomes_the_first_frame(workspace, named):
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[:, 48:] = 255
    cv2.imwrite("first.png", picture)
    main(["sample", *PROMPT, "--pipeline", str(named), "--image", "first.png"])
    first = read_video(MADE)[0].astype(int)
    half = first.shape[1] // 2
    assert first[:, : half - 8].mean() < 40 and first[:, half + 8 :].mean() > 215


def test_without_a_training_the_model_of_the_package_makes_it_and_one_line_says_so(
    workspace, named, monkeypatch, capsys
):
    monkeypatch.setattr(named_model, "SHIPPED", named)
    main(["sample", *PROMPT])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "made by" in line]
    assert line == "checkpoints/unmask_sft is not here: made by the model that comes with the package, small"
    assert MADE.exists()


def test_what_was_trained_here_comes_before_the_model_of_the_package(workspace, named, checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(named_model, "SHIPPED", named)
    shutil.copytree(checkpoint, "checkpoints/unmask_sft")
    main(["sample", *PROMPT, "--set", "sampler.steps=1"])
    told = capsys.readouterr().err
    assert "made by checkpoints/unmask_sft, which was trained here" in told and "1/1" in told


def test_without_any_model_it_is_said_how_to_get_one(workspace, monkeypatch, tmp_path):
    monkeypatch.setattr(named_model, "SHIPPED", tmp_path / "nothing")
    assert "train one (make demo), or name --checkpoint or --pipeline" in refused()


def test_two_models_are_refused(workspace, named, checkpoint):
    said = refused("--pipeline", str(named), "--checkpoint", str(checkpoint))
    assert "are two models: name one of them" in said


def test_a_folder_of_the_other_kind_is_named_as_what_it_is(workspace, named, checkpoint):
    assert "is a pipeline folder (model_index.json), not a checkpoint: open it with --pipeline" in refused(
        "--checkpoint", str(named)
    )
    assert "it is a checkpoint, which --checkpoint of stiv sample opens" in refused("--pipeline", str(checkpoint))


def test_a_folder_whose_weights_were_changed_makes_no_video(workspace, named):
    shutil.copytree(named, "changed")
    path = Path("changed/vae/diffusion_pytorch_model.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert f"{path} has sha256 " in refused("--pipeline", "changed")


@pytest.mark.parametrize("key", ["sampler.steps=4", "latents.frames=4", "text.precision=bfloat16"])
def test_settings_that_a_pipeline_folder_has_itself_are_refused(workspace, named, key):
    said = refused("--pipeline", str(named), "--set", key)
    assert said.startswith(f"stiv sample: --set {key}: the pipeline folder {named} has size and sampler of its own")


def test_a_picture_that_is_none_is_refused_before_a_model_is_read(workspace):
    assert "--image params.yaml is not there or is no picture that OpenCV reads" in refused("--image", "params.yaml")
