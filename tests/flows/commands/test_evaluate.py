"""`stiv evaluate` with a model: what is missing is made, the same in shards and after a kill; refusals are one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from flows.__main__ import main
from stiv_model.settings import Mode
from tasks.evaluation import sealing, values
from tasks.storage import tables
from tests.stiv_model.weights.test_warm_start import TRAINED

PROMPTS = ["a red circle moves left", "a blue square moves up", "a green cross moves down"]
FEW = [
    "samples.text_prompts=2",
    "samples.image_prompts=1",
    "samples.seen_text_prompts=0",
    "samples.seen_image_prompts=0",
]


def evaluate(*words: str) -> None:
    main(["evaluate", *map(str, words)])


def refused(*words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        evaluate(*words)
    assert isinstance(stop.value.code, str) and "\n" not in stop.value.code
    return stop.value.code


@pytest.fixture
def prompts(workspace) -> Path:
    (workspace / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    return workspace / "prompts.txt"


def test_videos_of_prompts_are_made_and_shards_give_the_card_of_the_whole(prompts, named):
    words = ["--suite", "prompts", "--prompts", prompts, "--pipeline", named]
    evaluate(*words, "--out", "whole")
    card = sealing.read(Path("whole/card.json"))
    assert (card.account.ok, card.suite.prompts_are_rewritten, card.videos.pixels) == (3, False, "arrays")
    assert card.model.weights and card.model.sampler["steps"] == 2 and card.model.machine.kernels is not None
    assert [row["prompt"] for row in values.read(card, Path("whole/card.json"))] == PROMPTS
    made = {path.name: path.read_bytes() for path in Path("whole_videos").glob("*.npy")}
    for shard in ("2/2", "1/2"):
        evaluate(*words, "--out", "parts", "--shard", shard)
        assert not Path("parts").exists()
    Path("parts_videos/00001-0.npy").unlink()  # as a killed process leaves it
    evaluate(*words, "--out", "parts")
    assert {path.name: path.read_bytes() for path in Path("parts_videos").glob("*.npy")} == made
    assert Path("parts/card.json").read_bytes() == Path("whole/card.json").read_bytes()
    (prompts.parent / "longer.txt").write_text("\n".join(f"{line}, slowly" for line in PROMPTS))
    evaluate(*words, "--rewritten", "longer.txt", "--out", "longer")
    with pytest.raises(SystemExit, match=r"suite\.prompts_are_rewritten, suite\.prompts_sha256"):
        main(["compare", "whole/card.json", "longer/card.json"])
    said = refused(*words, "--rewritten", "longer.txt", "--out", "whole")
    assert "whole_videos holds videos that were made otherwise (asked differs)" in said


def test_samples_of_shapes_are_made_in_the_modes_that_a_model_was_trained_for(workspace, named):
    words = ["--pipeline", named, "--out", "out", "--set", *FEW]
    evaluate(*words)
    card = sealing.read(Path("out/card.json"))
    assert {one.group for one in card.dimensions} == {"t2v held_out"} and card.account.given == 2
    before = Path("out_videos", tables.SAMPLE_LIST).stat().st_mtime_ns
    evaluate(*words)
    assert Path("out_videos", tables.SAMPLE_LIST).stat().st_mtime_ns == before


def trained_for(named: Path, clean_frames: object, **changes: object) -> Path:
    """Return a copy of a pipeline folder that says of itself what it was trained for, with dropout of the image."""
    folder = Path(shutil.copytree(named, "model"))
    config = folder / "transformer/config.json"
    trained = TRAINED.model_copy(update={"clean_frames": clean_frames, "image_dropout": 0.1} | changes)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"trained": trained.model_dump(mode="json")}))
    return folder


def mixture(*patterns: str, stride: int = 1) -> tuple[Mode, ...]:
    return tuple(Mode(clean_frames=pattern, stride=stride, weight=1.0) for pattern in patterns)


@pytest.mark.parametrize(
    ("clean_frames", "modes"),
    [
        ("first", {"t2v", "ti2v"}),
        ("every_second", {"tup"}),
        (mixture("first", "first_and_last"), {"between"}),
        (mixture("first", stride=3) + mixture("first_and_last"), {"between"}),
    ],
)
def test_samples_of_shapes_are_made_in_the_modes_that_a_model_says_it_was_trained_for(
    workspace, named, clean_frames, modes
):
    few = [*FEW, "samples.between=1", "samples.interpolated=1", "sampler.steps=1"]
    evaluate("--pipeline", trained_for(named, clean_frames), "--out", "out", "--set", *few)
    listed = json.loads(Path("out_videos", tables.SAMPLE_LIST).read_text())["samples"]
    assert {row["mode"] for row in listed} == modes


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        (
            {"clean_frames": "first", "stride_frames": 6},
            "stride_frames is 3, but the model was trained (recipe any) with 6",
        ),
        ({"clean_frames": mixture("first", "first_and_last", stride=3)}, "stride_frames is 3, but"),
        ({"clean_frames": "views", "frames": 8}, "num_frames is 4, but the model was trained (recipe any) with 8"),
    ],
)
def test_a_model_that_was_trained_for_no_mode_of_shapes_is_refused_with_what_it_was_trained_for(
    workspace, named, trained, said
):
    refusal = refused("--pipeline", trained_for(named, **trained), "--out", "out")
    assert f"suite shapes has no mode that this model was trained for: {said}" in refusal


def test_videos_of_a_checkpoint_are_not_taken_for_those_of_other_encoders(prompts, checkpoint):
    shutil.copytree(checkpoint, "ema")
    weights = load_file("ema/model.safetensors")
    with safe_open("ema/model.safetensors", "pt") as file:
        save_file(weights, "ema/model.safetensors", {**(file.metadata() or {}), "averaged": "ema 0.9 after 6 steps"})
    words = ["--suite", "prompts", "--prompts", prompts, "--checkpoint", "ema", "--out", "out"]
    evaluate(*words, "--set", "sampler.steps=1")
    said = refused(*words, "--set", "sampler.steps=1", "vae.precision=bfloat16")
    assert "out_videos holds videos that were made otherwise (vae differs): name another --out" in said


def test_what_cannot_be_evaluated_is_refused_in_one_line(prompts, checkpoint, named):
    asked = ["--suite", "prompts", "--prompts", prompts, "--out", "out"]
    assert "does not say that it holds averaged weights (EMA)" in refused(*asked, "--checkpoint", checkpoint)
    assert "needs --checkpoint or --pipeline" in refused(*asked)
    (prompts.parent / "short.txt").write_text("one\ntwo\n")
    said = refused(*asked, "--pipeline", named, "--rewritten", "short.txt")
    assert "--rewritten short.txt has 2 lines, and" in said and "has 3: a line for each prompt" in said
    prompts.write_text("a\nb\na\n")
    assert "lines 1 and 3 are the same" in refused(*asked, "--pipeline", named)
    assert "are two models" in refused(*asked, "--pipeline", named, "--checkpoint", checkpoint)
    assert "--prompts" in refused("--suite", "videos", "--videos", ".", "--prompts", prompts, "--out", "out")
    assert "fdv is no metric: did you mean fvd?" in refused("--samples", ".", "--out", "out", "--metrics", "fdv")
    assert "samples.json does not exist" in refused("--samples", ".", "--out", "out")
    assert not Path("out").exists()


def test_no_folder_is_replaced_but_one_that_an_evaluation_made(workspace, named):
    mine = workspace / "mine/videos"
    mine.mkdir(parents=True)
    np.save(mine / "a.npy", np.zeros((4, 8, 8, 3), np.uint8))
    words = ["--suite", "videos", "--videos", mine]
    for out in (mine, "mine", workspace, "mine/../mine/videos"):
        assert f"--videos {mine} is in it: name an --out of its own" in refused(*words, "--out", out)
    (workspace / "other").mkdir()
    (workspace / "other/thesis.txt").write_text("years")
    assert "has files and no values.parquet among them" in refused(*words, "--out", "other")
    assert "has files and no values.parquet" in refused(*words, "--out", "other", "--shard", "1/1")
    assert "is a file" in refused(*words, "--out", "params.yaml")
    with pytest.raises(SystemExit, match=r"has files and no matrix\.json among them"):
        main(["matrix", "--pipeline", str(named), "--out", "other"])
    (workspace / "other").rename("out_videos")
    assert "out_videos would be replaced by what is made" in refused("--pipeline", named, "--out", "out")
    assert Path("out_videos/thesis.txt").exists() and (mine / "a.npy").exists()
