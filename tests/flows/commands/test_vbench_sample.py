"""`stiv vbench sample`: the suite's videos by a model, whole or absent, all of one set of settings."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.__main__ import main
from stiv_model.encoders.video_file import read_video
from tasks.evaluation.vbench import suite
from tasks.storage.atomic import sha256_file

ROOT = Path(__file__).parents[3]
PART = ("--dimensions", "color", "--shard", "1/213")
"""Two videos."""


def run(named: Path, out: Path, *words: str) -> None:
    main(["vbench", "sample", "--pipeline", str(named), "--out", str(out), *PART, *words])


def refused(named: Path, out: Path, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        run(named, out, *words)
    assert "\n" not in str(stop.value.code)
    return str(stop.value.code)


def hashes(out: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in (out / "videos").iterdir()}


@pytest.fixture(scope="module")
def sampled(named: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, of the prompts as the suite has them."""
    here = tmp_path_factory.mktemp("sampling")
    shutil.copy(named.parents[1] / "params.yaml", here / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        run(named, here / "vbench")
    return here / "vbench"


@pytest.fixture
def out(sampled: Path, workspace: Path) -> Path:
    shutil.copytree(sampled, workspace / "vbench")
    return workspace / "vbench"


def test_videos_have_the_suite_s_names_and_the_manifest_says_what_made_them(sampled, named):
    planned = suite.shard(suite.planned(dimensions=["color"]), "1/213")
    assert sorted(hashes(sampled)) == sorted(video.name for video in planned)
    settings = json.loads((sampled / "sampling.json").read_text())["settings"]
    assert settings["file"] == {"codec": "libx264", "crf": 12, "fps": 8}
    assert settings["makes"]["sampler"]["steps"] == 2 and settings["prompts"] == {
        "are_rewritten": False,
        "sha256": None,
    }
    weights = settings["model"]["sha256"]
    assert any(name.startswith("transformer/") and sha256_file(named / name) == weights[name] for name in weights)
    size = settings["makes"]
    for video in (sampled / "videos").iterdir():
        assert read_video(video).shape == (size["frames"], size["height"], size["width"], 3)


def test_the_same_command_makes_what_is_missing_and_that_byte_by_byte(out, named, capsys):
    before = hashes(out)
    first = sorted(before)[0]
    (out / "videos" / first).unlink()
    (out / ".1-of-213.tmp").write_text("of a killed process")
    run(named, out)
    told = capsys.readouterr()
    assert told.out == f"{out}/videos: 2 videos of shard 1/213, 1 of them made now\n"
    assert hashes(out) == before and not (out / ".1-of-213.tmp").exists()
    assert "2/2" in told.err


@pytest.mark.long
def test_a_process_that_is_killed_leaves_whole_videos_and_the_next_one_makes_the_rest_as_undisturbed(
    sampled, named, workspace
):
    """Quick sibling: the test above, and test_sampled.py."""
    out = workspace / "killed"
    words = ["vbench", "sample", "--pipeline", str(named), "--out", str(out), *PART]
    with subprocess.Popen(
        [sys.executable, "-m", "flows", *words], env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        while not list(out.glob("videos/*.mp4")):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        process.kill()
    whole = hashes(out)
    assert whole.items() <= hashes(sampled).items()
    run(named, out)
    assert hashes(out) == hashes(sampled)


def test_a_folder_of_other_settings_is_refused_with_what_differs(out, named):
    before = hashes(out)
    assert "was made with file.fps 8, and this is 16: name a new folder" in refused(named, out, "--fps", "16")
    longer = out.parent / "longer.txt"
    longer.write_text("\n".join(f"{entry.prompt} now" for entry in suite.entries()))
    assert "was made with prompts.are_rewritten false" in refused(named, out, "--prompts", str(longer))
    assert hashes(out) == before


def test_what_cannot_be_followed_is_refused_before_a_model_is_read(workspace):
    nothing = workspace / "no pipeline"
    (workspace / "short.txt").write_text("one line\n")
    assert "has 1 lines, and the suite has 946" in refused(nothing, workspace / "o", "--prompts", "short.txt")
    assert "--shard 3/2 is no part" in refused(nothing, workspace / "o", "--shard", "3/2")
    assert "--fps 0" in refused(nothing, workspace / "o", "--fps", "0")
    assert not (workspace / "o").exists()


def test_a_prompt_that_the_model_cannot_take_is_told_before_the_first_video(workspace, named):
    lines = [f"{entry.prompt}{' very' * 300}" for entry in suite.entries()]
    (workspace / "long.txt").write_text("\n".join(lines))
    assert "tokens, but the model has learnt from" in refused(named, workspace / "o", "--prompts", "long.txt")
    assert not (workspace / "o").exists()


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(workspace, capsys):
    main(["vbench", "sample", "--out", "o", "--dry-run"])
    told = capsys.readouterr().out
    assert told.startswith(
        "shard 1/1: 6220 videos of 944 prompts, 1875 of them for temporal_flickering; 0 have their name"
    )
    assert not Path("o").exists()


def test_the_prompts_are_printed_in_the_order_that_a_file_of_them_takes(workspace, capsys):
    main(["vbench", "prompts"])
    Path("prompts.txt").write_text(capsys.readouterr().out)
    assert suite.read_texts(Path("prompts.txt"), suite.entries()) == [entry.prompt for entry in suite.entries()]
    main(["vbench", "prompts", "--dimensions", "color"])
    assert len(capsys.readouterr().out.splitlines()) == 85


def test_a_suite_of_images_makes_videos_that_begin_with_them(workspace, named):
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[:, 48:] = 255
    Path("crop").mkdir()
    cv2.imwrite("crop/half.png", picture)
    Path("info.json").write_text(
        json.dumps([{"prompt_en": "a dog", "dimension": ["i2v_subject"], "image_name": "half.png"}])
    )
    words = ["vbench", "sample", "--pipeline", str(named), "--out", "o", "--suite", "info.json", "--shard", "1/5"]
    with pytest.raises(SystemExit, match="is of image to video: name the folder of its images by --images"):
        main(words)
    main([*words, "--images", "crop"])
    first = read_video(Path("o/videos/a dog-0.mp4"))[0].astype(int)
    half = first.shape[1] // 2
    assert first[:, : half - 8].mean() < 40 and first[:, half + 8 :].mean() > 215
    Path("crop/half.png").write_text("no picture")
    with pytest.raises(SystemExit, match=r"half\.png is not there or is no picture"):
        main([*words, "--images", "crop"])
    cv2.imwrite("crop/half.png", picture[:, ::-1])
    with pytest.raises(SystemExit, match=r"was made with images\.sha256"):
        main([*words, "--images", "crop"])


@pytest.mark.parametrize("prompt", ["a/b", "../../escaped", "a\nb", "x" * 250])
def test_a_prompt_that_leads_out_of_the_folder_or_fits_no_name_is_refused(workspace, prompt):
    Path("info.json").write_text(json.dumps([{"prompt_en": prompt, "dimension": ["scene"]}]))
    with pytest.raises(SystemExit, match="would have a"):
        main(["vbench", "sample", "--out", "o", "--suite", "info.json"])
    assert sorted(path.name for path in workspace.iterdir()) == ["info.json", "params.yaml"]


def test_images_of_a_suite_that_has_none_are_refused(workspace):
    assert "the suite is of text to video, and has none" in refused(workspace, workspace / "o", "--images", ".")
