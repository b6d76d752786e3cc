"""Validation videos are judged as they lie on the disk, and what cannot be read costs its point and no more."""

import csv
import json

import cv2
import numpy as np
import pytest

from stiv_model.encoders.video_file import read_video, write_video
from stiv_model.monitoring import validation_files
from tasks.demo import shapes
from tasks.evaluation import learning

SCENES = [shapes.scene(21, number, held_out=True) for number in range(2)]
PROMPTS = [shapes.prompt(shapes.Combination(one.colour, one.shape, one.direction)) for one in SCENES]


def validation(shown, recipe: str, step: int, prompts=PROMPTS, videos=None):
    """Write what one validation leaves; return its folder."""
    folder = shown / recipe / validation_files.FOLDER / validation_files.step_folder(step)
    folder.mkdir(parents=True)
    (folder / validation_files.PROMPTS).write_text(json.dumps(prompts))
    for number, video in enumerate(videos or [shapes.render(scene, 64, 8) for scene in SCENES]):
        write_video(folder / f"prompt-{number}.mp4", video, 8)
    return folder


def rows(shown, tmp_path, recipes=("t2i", "t2v", "stiv")):
    learning.judge_validations.fn(shown, recipes, tmp_path / "learning.tsv")
    with (tmp_path / "learning.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_a_video_of_ours_is_read_back(tmp_path):
    video = shapes.render(SCENES[0], 64, 8)
    write_video(tmp_path / "a.mp4", video, 8)
    found = read_video(tmp_path / "a.mp4")
    assert found.shape == video.shape and np.abs(found.astype(int) - video).mean() < 4


def test_true_videos_are_right_in_the_order_of_training(tmp_path):
    for recipe, step in (("stiv", 5), ("t2v", 20), ("t2v", 10)):
        validation(tmp_path / "shown", recipe, step)
    found = rows(tmp_path / "shown", tmp_path)
    assert [(row["recipe"], row["step"]) for row in found] == [("t2v", "10"), ("t2v", "20"), ("stiv", "5")]
    for row in found:
        assert [row[name] for name in ("n", *learning.FIGURES)] == ["2"] * 6


def test_a_single_frame_has_colour_and_shape_and_no_direction(tmp_path):
    folder = validation(tmp_path / "shown", "t2i", 4)
    for number, scene in enumerate(SCENES):
        (folder / f"prompt-{number}.mp4").unlink()
        frame = shapes.render(scene, 64, 1)[0]
        cv2.imwrite(str(folder / f"prompt-{number}.png"), frame[..., ::-1])
    (row,) = rows(tmp_path / "shown", tmp_path)
    assert [row[name] for name in learning.FIGURES] == ["2", "2", "", "2", ""]


def test_prompts_that_say_nothing_of_a_shape_are_not_judged(tmp_path):
    validation(tmp_path / "all", "t2v", 1, prompts=["a cat", "two dogs"])
    assert rows(tmp_path / "all", tmp_path) == []
    validation(tmp_path / "some", "t2v", 1, prompts=["a cat", PROMPTS[1]])
    assert [row["n"] for row in rows(tmp_path / "some", tmp_path)] == ["1"]


@pytest.mark.parametrize("spoil", ["prompts", "video", "bytes"])
def test_a_validation_that_cannot_be_read_is_passed_over_with_a_warning(tmp_path, caplog, spoil):
    validation(tmp_path / "shown", "t2v", 1)
    folder = validation(tmp_path / "shown", "t2v", 2)
    match spoil:
        case "prompts":
            (folder / validation_files.PROMPTS).unlink()
        case "video":
            (folder / "prompt-1.mp4").unlink()
        case "bytes":
            (folder / "prompt-1.mp4").write_bytes(b"no video")
    assert [row["step"] for row in rows(tmp_path / "shown", tmp_path)] == ["1"]
    assert f"{folder} is not judged" in caplog.text


def test_no_validation_at_all_leaves_a_table_without_rows(tmp_path):
    assert rows(tmp_path / "nothing", tmp_path) == []
