"""`stiv sample`: by which model, with whose settings, and what a person sees who asks for what cannot be."""

import json
import shutil
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from flows.__main__ import main
from flows.commands import named_model
from flows.params import load_params
from flows.running import locks
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
    said = refused("--image", "params.yaml")
    assert said.startswith("stiv sample: --image params.yaml cannot be used (not_a_picture): The file is no PNG")


@pytest.fixture(scope="module")
def several(named, tmp_path_factory) -> Path:
    """A folder without params.yaml, with two videos of each of two prompts, all with one first frame."""
    here = tmp_path_factory.mktemp("several")
    (here / "prompts.txt").write_text("a red circle moves left\na blue square moves up\n")
    cv2.imwrite(str(here / "first.png"), np.full((40, 60, 3), 200, np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        asked = ["--num-videos", "2", "--seed", "7", "--num-inference-steps", "1", "--guidance", "text"]
        given = ["--prompts", "prompts.txt", "--image", "first.png", "--pipeline", str(named)]
        main(["sample", *given, *asked, "--guidance-scale", "1.5", "--fps", "7.5", "--out", "made"])
    return here


def test_every_prompt_has_a_video_of_each_seed_with_a_record_that_the_file_carries_too(several):
    names = {"000-seed7", "000-seed8", "001-seed7", "001-seed8"}
    assert {path.name for path in (several / "made").iterdir()} == {
        f"{n}.{end}" for n in names for end in ("mp4", "json")
    }
    path = several / "made/001-seed8.mp4"
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["options"]["prompt"] == "a blue square moves up" and record["options"]["seed"] == 8
    assert (record["asked"]["sampler"]["steps"], record["asked"]["sampler"]["guidance_scale"]) == (1, 1.5)
    (given,) = record["given"]
    assert given["shown"] == [60, 40] and given["used"] == [40, 40], "never stretched: the sides are cut off"
    assert given["sha256"] == sha256((several / "first.png").read_bytes()).hexdigest()
    assert record["sha256"] == sha256(path.read_bytes()).hexdigest() and record["file"] == path.name
    assert len({json.loads(one.read_text())["sha256"] for one in (several / "made").glob("*.json")}) == 4
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(15, 2)
        carried = json.loads(container.metadata["comment"])
    assert carried | {"file": path.name, "sha256": record["sha256"]} == record


def test_a_video_is_made_again_byte_for_byte(several, monkeypatch, capsys):
    monkeypatch.chdir(several)
    threads = torch.get_num_threads()
    try:
        main(["sample", "--again", "made/001-seed8.json", "--out", "same.mp4"])
    finally:
        torch.set_num_threads(threads)
    assert Path("same.mp4").read_bytes() == Path("made/001-seed8.mp4").read_bytes()
    assert Path("same.json").read_text() == Path("made/001-seed8.json").read_text().replace("001-seed8.mp4", "same.mp4")
    told = capsys.readouterr().err
    assert "params.yaml is not here: device, precision and limits are those of the embedded default" in told
    assert "--image first.png is 60 x 40 pixels: its middle 40 x 40 pixels at 32 x 32" in told


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        ({}, ("--set", "sampler.steps=4"), "--again x.json says all of what to make: leave --set sampler.steps=4 out"),
        ({}, ("--seed", "3"), "--again x.json says all of what to make: leave --seed out"),
        ({"command": "predict"}, (), "--again x.json is of stiv predict: give it to that command"),
        ({"layout": 9}, (), "--again x.json: layout: Input should be 1"),
        ({"given": []}, (), "--again x.json: first.png was nothing when the video was made, and is "),
        (
            {"model": {"checkpoint": None, "pipeline": "x", "sha256": {}}},
            ("--pipeline", "PIPELINE"),
            "was nothing when the",
        ),
        (None, (), "--again x.json is not there"),
    ],
)
def test_a_record_that_cannot_be_followed_is_refused(several, named, tmp_path, monkeypatch, change, words, said):
    monkeypatch.chdir(tmp_path)
    shutil.copy(several / "first.png", "first.png")
    if change is not None:
        values = json.loads((several / "made/000-seed7.json").read_text())
        Path("x.json").write_text(json.dumps(values | change))
    with pytest.raises(SystemExit) as stop:
        main(["sample", "--again", "x.json", "--out", "y.mp4", *(str(named) if w == "PIPELINE" else w for w in words)])
    assert said in str(stop.value.code) and not Path("y.mp4").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no prompt is given"),
        (("--prompt", "a", "--prompts", "p.txt"), "--prompt and --prompts p.txt are both given"),
        (("--prompts", "p.txt"), "--prompts p.txt: line 2 is empty"),
        (("--prompt", "a", "--num-videos", "2"), "--out x.mp4 is one file, but 2 videos are asked for: name a folder"),
        (("--prompt", "a", "--fps", "0.0001"), "--fps is 0.0001: a file has 0.01 to 1000 frames per second"),
        (("--prompt", "a", "--num-videos", "0"), "options: num_videos: Input should be greater than 0"),
        (("--prompt", "a", "--checkpoint", "checkpoints/sft"), "params.yaml is not here, and says size and sampler of"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_read(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a\n\nb\n")
    with pytest.raises(SystemExit) as stop:
        main(["sample", *words, "--out", "x.mp4"])
    assert said in str(stop.value.code)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--image", "kept.mp4"), "--out kept.mp4 would take the place of --image kept.mp4: name another --out"),
        (("--prompts", "kept.json"), "the record of --out kept.mp4 would take the place of --prompts kept.json"),
        ((), "--out kept.mp4 is there, and no kept.json beside it says that it was made by stiv: name another"),
    ],
)
def test_nobody_s_file_is_written_over(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    Path("kept.mp4").write_bytes(b"of a person")
    if words == ("--prompts", "kept.json"):
        Path("kept.json").write_text("a\n")
    with pytest.raises(SystemExit) as stop:
        main(["sample", *(words if "--prompts" in words else ("--prompt", "a", *words)), "--out", "kept.mp4"])
    assert said in str(stop.value.code) and Path("kept.mp4").read_bytes() == b"of a person"


def test_a_json_of_another_program_stays_and_a_video_of_ours_is_replaced(several, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.json").write_text('{"of": "another"}')
    asked = ["--pipeline", str(named), "--num-inference-steps", "1", "--prompt", "a"]
    with pytest.raises(SystemExit) as stop:
        main(["sample", *asked, "--out", "x.mp4"])
    assert "x.json, where the record of --out x.mp4 goes, is there and is no record of a video" in str(stop.value.code)
    for ending in ("mp4", "json"):
        shutil.copy(several / f"made/000-seed7.{ending}", f"y.{ending}")
    main(["sample", *asked, "--guidance", "separate", "--image-guidance-scale", "2.5", "--out", "y.mp4"])
    record = json.loads(Path("y.json").read_text())
    assert record["options"]["prompt"] == "a" and record["asked"]["sampler"]["image_guidance_scale"] == 2.5
    assert record["encoding"] == {
        "codec": "libx264",
        "crf": 12,
        "preset": "veryfast",
        "threads": 1,
        "cpu_independent": 1,
    }
    with pytest.raises(SystemExit) as stop:
        main(["sample", *asked, "--guidance", "joint", "--image-guidance-scale", "2.5", "--out", "y.mp4"])
    assert "--image-guidance-scale is 2.5, but guidance is joint" in str(stop.value.code)


def test_two_commands_for_one_file_are_one_from_whatever_folder_they_were_started(several, named, monkeypatch):
    monkeypatch.chdir(several)
    with locks.video(several / "x.mp4", "sample"), pytest.raises(SystemExit) as stop:
        main(["sample", "--prompt", "a", "--pipeline", str(named), "--out", "x.mp4"])
    assert "is making x.mp4: wait for it, or end it" in str(stop.value.code)
