"""`stiv interpolate` and `stiv predict`: which frames of a file are given, how far apart, and which are made."""

import json
import re
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.__main__ import main
from flows.commands import interpolate
from flows.commands.named_model import ModelFacts
from flows.params import load_params
from stiv_model.encoders.video_file import read_video
from stiv_model.pipeline.components import PipelineDefaults
from stiv_model.pipeline.interpolation import strides_of
from stiv_model.settings import Encoders, Mode
from stiv_model.weights.metadata import Trained


def trained(**changes) -> Trained:
    values = {
        "recipe_name": "tup",
        "steps": 1,
        "frames": 4,
        "stride_frames": 3,
        "latent_height": 4,
        "latent_width": 4,
        "clean_frames": "every_second",
        "text_dropout": 0.1,
        "image_dropout": 0.1,
        "ema_decay": 0.9,
        "encoders": Encoders(vae_sha256="v", text_sha256="t"),
    }
    return Trained(**(values | changes))


def facts_of(said: Trained | None, named: Path) -> ModelFacts:
    defaults = json.loads((named / "model_index.json").read_text())["defaults"]
    return ModelFacts(PipelineDefaults.model_validate(defaults), said, True, 2)


TWICE = tuple(Mode(clean_frames="every_second", stride=stride, weight=1.0) for stride in (1, 2))


@pytest.fixture(scope="module")
def footage(tmp_path_factory, write_video, moving_frames) -> Path:
    """A folder without params.yaml with a video of 30 frames, 24 per second."""
    here = tmp_path_factory.mktemp("footage")
    write_video(here / "square.mp4", moving_frames(30))
    return here


@pytest.mark.parametrize(
    ("said", "stated", "factor", "strides", "refused"),
    [
        (trained(), None, 2, [3], None),  # footage: every sixth frame
        (trained(), 6, 2, [3], None),
        (
            trained(),
            4,
            2,
            [2],
            "the frames to fill in between are 4 source frames apart, but .* between frames 6 apart",
        ),
        (trained(stride_frames=2), None, 4, [2, 1], "are 2 source frames apart, .* between frames 4 apart"),
        (trained(stride_frames=2, clean_frames=TWICE), None, 4, [4, 2], None),
        (trained(stride_frames=2, clean_frames=TWICE), None, 2, [4], None),
        (trained(clean_frames="first"), None, 2, [3], None),  # of which the call itself says so
        (None, 4, 4, [2, 1], None),
    ],
)
def test_given_frames_are_as_far_apart_as_in_training(named, said, stated, factor, strides, refused):
    facts = facts_of(said, named)
    assert strides_of(said, facts.defaults.stride_frames, 4, factor, stated) == strides
    found = interpolate._not_trained(facts, strides, 4)
    assert (found is None) if refused is None else (found is not None and re.search(refused, found))


def test_footage_is_filled_in_and_goes_on_at_twice_the_rate_of_its_given_frames(footage, named, monkeypatch):
    monkeypatch.chdir(footage)
    main(
        [
            "interpolate",
            "--video",
            "square.mp4",
            "--pipeline",
            str(named),
            "--num-inference-steps",
            "1",
            "--out",
            "s.mp4",
        ]
    )
    record = json.loads(Path("s.json").read_text())
    (given,) = record["given"]
    assert given["places"] == [0, 6, 12, 18, 24], "twice the stride of training apart"
    assert Fraction(record["fps"]) == Fraction(24, 6) * 2 and record["stride_frames"] == 3
    assert len(read_video(Path("s.mp4"))) == 2 * 5 - 1
    with pytest.raises(SystemExit) as stop:
        main(["interpolate", "--video", "s.mp4", "--stride-frames", "6", "--pipeline", str(named), "--out", "t.mp4"])
    assert "--stride-frames is 6, but the record of --video s.mp4 says 3" in str(stop.value.code)
    main(["interpolate", "--again", "s.json", "--out", "same.mp4"])
    assert Path("same.mp4").read_bytes() == Path("s.mp4").read_bytes()


def test_a_video_goes_on_from_its_last_frames(footage, named, monkeypatch):
    monkeypatch.chdir(footage)
    model = ["--pipeline", str(named), "--num-inference-steps", "1"]
    main(["predict", "--video", "square.mp4", "--given", "2", *model, "--out", "next.mp4"])
    record = json.loads(Path("next.json").read_text())
    assert record["given"][0]["places"] == [26, 29] and record["fps"] == "8" and record["options"]["given"] == 2
    assert len(read_video(Path("next.mp4"))) == 4


def test_a_video_goes_on_for_as_many_seconds_as_are_asked_for(footage, named, monkeypatch):
    monkeypatch.chdir(footage)
    model = ["--pipeline", str(named), "--num-inference-steps", "1"]
    main(["predict", "--video", "square.mp4", "--given", "1", "--seconds", "1.25", *model, "--out", "long.mp4"])
    made = read_video(Path("long.mp4"))
    assert len(made) == 10, "8 frames per second, of which a call makes 3 new ones"
    assert json.loads(Path("long.json").read_text())["options"]["seconds"] == 1.25
    main(["predict", "--again", "long.json", "--out", "long again.mp4"])
    main(["predict", "--video", "long.mp4", "--given", "2", *model, "--out", "longer.mp4"])
    record = json.loads(Path("longer.json").read_text())
    assert record["given"][0]["places"] == [8, 9] and record["fps"] == "8", "as far apart as they were made"
    assert Path("long again.mp4").read_bytes() == Path("long.mp4").read_bytes()


def test_what_lies_between_two_pictures_has_both_at_its_ends(footage, named, monkeypatch):
    monkeypatch.chdir(footage)
    for name, level in (("dark.png", 20), ("light.png", 230)):
        cv2.imwrite(name, np.full((64, 64, 3), level, np.uint8))
    given = ["--image", "dark.png", "--last-image", "light.png"]
    main(["interpolate", *given, "--pipeline", str(named), "--num-inference-steps", "1", "--out", "between.mp4"])
    video = read_video(Path("between.mp4")).astype(int)
    assert video[0].mean() < 60 and video[-1].mean() > 190


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("predict",), "no video is given: name the one to go on with, --video FILE"),
        (("predict", "--video", "square.mp4", "--given", "0"), "--given is 0: one frame is given at least"),
        (
            ("predict", "--video", "square.mp4", "--given", "4"),
            "--given is 4, but the video has 4 frames: leave one to make",
        ),
        (
            ("predict", "--video", "square.mp4", "--given", "12", "--num-frames", "20"),
            "has 30 frames, but 12 frames that",
        ),
        (
            ("predict", "--video", "square.mp4", "--seconds", "1.3"),
            "--seconds 1.3 at 8 frames per second is 10.40 frames: use 1.25 (10) or 1.375 (11)",
        ),
        (("predict", "--video", "square.mp4", "--seconds", "0.1"), "is 0.80 frames: use 0.125 (1)"),
        (
            ("predict", "--video", "square.mp4", "--seconds", "0.125"),
            "is 1 frames at 8 per second, of which 1 are given",
        ),
        (("predict", "--video", "square.mp4", "--seconds", "0"), "--seconds is 0: use more than 0, and 3600 at most"),
        (
            ("predict", "--video", "square.mp4", "--seconds", "2", "--num-frames", "4"),
            "--seconds 2 and --num-frames 4 both say how long the video is",
        ),
        (("predict", "--video", "square.mp4", "--image", "a.png"), "both begin the video: leave one out"),
        (("predict", "--video", "square.mp4", "--num-frames", "7"), "the temporal patch is 2: use 6 or 8"),
        (("interpolate",), "name what lies on both sides"),
        (("interpolate", "--image", "a.png"), "name what lies on both sides"),
        (
            ("interpolate", "--video", "square.mp4", "--image", "a.png"),
            "--video square.mp4 and pictures are both given",
        ),
        (("interpolate", "--video", "square.mp4", "--factor", "3"), "--factor is 3: frames are doubled once or twice"),
        (("interpolate", "--video", "square.mp4", "--stride-frames", "0"), "--stride-frames is 0"),
        (("interpolate", "--video", "square.mp4", "--num-frames", "2"), "--num-frames is 2, in which no frame lies"),
        (
            ("interpolate", "--image", "a.png", "--last-image", "b.png", "--factor", "2"),
            "--factor goes with --video, but pictures are given: leave it out",
        ),
        (("interpolate", "--video", "one.mp4"), "--video one.mp4 has one frame, but the model fills in between 2"),
        (
            ("interpolate", "--image", "wide.png", "--last-image", "tall.png"),
            "is 16 x 32 pixels, but --image wide.png is",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_in_one_line(
    footage, named, write_video, moving_frames, monkeypatch, words, said
):
    monkeypatch.chdir(footage)
    if not Path("one.mp4").exists():
        write_video(Path("one.mp4"), moving_frames(1))
        cv2.imwrite("wide.png", np.zeros((16, 32, 3), np.uint8))
        cv2.imwrite("tall.png", np.zeros((32, 16, 3), np.uint8))
    with pytest.raises(SystemExit) as stop:
        main([*words, "--pipeline", str(named), "--out", "refused.mp4"])
    assert said in str(stop.value.code) and "\n" not in str(stop.value.code)
    assert not Path("refused.mp4").exists()


def test_a_checkpoint_is_sampled_between_frames_as_stage_samples_does_it(workspace, checkpoint, footage):
    words = ["interpolate", "--video", str(footage / "square.mp4"), "--untrained", "--checkpoint", str(checkpoint)]
    samples = load_params().samples
    main([*words, "--out", "a.mp4"])
    asked = json.loads(Path("a.json").read_text())["asked"]["sampler"]
    assert (asked["guidance_scale"], asked["steps"]) == (samples.given_guidance_scale, samples.given_steps)
    main([*words, "--out", "b.mp4", "--guidance-scale", "2", "--set", "sampler.steps=1"])
    asked = json.loads(Path("b.json").read_text())["asked"]["sampler"]
    assert (asked["guidance_scale"], asked["steps"]) == (2.0, 1)
    main(["interpolate", "--again", "b.json", "--out", "c.mp4"])
    assert Path("c.mp4").read_bytes() == Path("b.mp4").read_bytes()
