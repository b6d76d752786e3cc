"""The judge's figures are counted right, and no sample is lost on the way."""

import cv2
import numpy as np
import pytest

from tasks.demo import shapes
from tasks.evaluation import judge, suites
from tests.made_card import list_samples, write_card
from tests.made_card import write_sample as sample


def judged(folder, *rows):
    list_samples(folder, rows)
    return write_card(folder, folder / "reports")


def test_wilson_interval_equals_the_published_example():
    # 8 of 10: Newcombe 1998 and R's prop.test(8, 10, correct=FALSE) give 0.4902 to 0.9433
    share = judge.wilson(8, 10)
    assert (share.low, share.high) == pytest.approx((0.4902, 0.9433), abs=5e-4)


def test_interval_stays_within_nothing_and_all():
    assert judge.wilson(0, 5).low == 0 and judge.wilson(5, 5).high == 1


def test_a_share_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 right of 0"):
        judge.wilson(0, 0)


def test_true_videos_are_all_right_and_above_chance(tmp_path):
    figures = judged(tmp_path, *(sample(tmp_path, f"t2v-{number}") for number in range(6)))["modes"]["t2v"]["held_out"]
    assert figures["n"] == 6 and figures["moved"]["right"] == 6
    for name in judge.ATTRIBUTES:
        assert figures[name]["share"] == 1 and figures[name]["above_chance"]
    assert figures["one_object"]["right"] == figures["same_object"]["right"] == 6


def test_held_out_and_seen_combinations_have_figures_of_their_own(tmp_path):
    grey = np.full((8, 64, 64, 3), 128, np.uint8)
    rows = [sample(tmp_path, "t2v-0", video=grey), sample(tmp_path, "t2v-1", held_out=False)]
    rows += [sample(tmp_path, "t2v-2", held_out=False), sample(tmp_path, "tup-3", "tup")]
    modes = judged(tmp_path, *rows)["modes"]
    assert {mode: {name: group["n"] for name, group in groups.items()} for mode, groups in modes.items()} == {
        "t2v": {"held_out": 1, "seen": 2},
        "tup": {"held_out": 1},
    }
    assert (modes["t2v"]["held_out"]["colour"]["right"], modes["t2v"]["seen"]["colour"]["right"]) == (0, 2)


def test_videos_of_two_objects_or_of_another_in_each_frame_are_told(tmp_path):
    video = np.load(tmp_path / sample(tmp_path, "t2v-0")["file"])
    two = np.concatenate([video, video], axis=2)[:, :, ::2]
    other = shapes.render(shapes.scene(3, 12, held_out=True)._replace(shape="cross", size=0.3), 64, 8)
    rows = [sample(tmp_path, "t2v-0", video=two), sample(tmp_path, "t2v-1", video=np.stack([*video[:4], *other[4:]]))]
    first, second = judged(tmp_path, *rows)["verdicts"]
    assert not first["one_object"] and not second["same_object"]


def test_a_video_of_nothing_counts_as_wrong_and_unseen(tmp_path):
    grey = np.full((8, 64, 64, 3), 128, np.uint8)
    figures = judged(tmp_path, sample(tmp_path, "t2v-0"), sample(tmp_path, "t2v-1", video=grey))["modes"]["t2v"][
        "held_out"
    ]
    assert (figures["n"], figures["unseen"], figures["colour"]["right"]) == (2, 1, 1)


def test_a_still_video_did_not_move_and_has_no_direction(tmp_path):
    still = np.repeat(shapes.render(shapes.scene(3, 0, held_out=True), 64, 1), 8, axis=0)
    figures = judged(tmp_path, sample(tmp_path, "t2v-0", video=still))["modes"]["t2v"]["held_out"]
    assert figures["colour"]["right"] == 1 and figures["moved"]["right"] == figures["direction"]["right"] == 0


def test_half_right_is_not_above_chance_when_few(tmp_path):
    rows = [sample(tmp_path, "t2v-0"), sample(tmp_path, "t2v-1", shape="no such shape")]
    shape = judged(tmp_path, *rows)["modes"]["t2v"]["held_out"]["shape"]
    assert shape["share"] == 0.5 and not shape["above_chance"]


def test_every_sample_is_accounted_for(tmp_path):
    broken = sample(tmp_path, "t2v-1")
    (tmp_path / "t2v-1.npy").write_bytes(b"no array")
    rows = [sample(tmp_path, "t2v-0"), broken, sample(tmp_path, "t2v-2", colour=None)]
    judgement = judged(tmp_path, *rows, sample(tmp_path, "t2v-3", status="failed"))
    assert judgement["samples"] == {
        "given": 4,
        "ok": 1,
        "rejected": 1,
        "failed": 2,
        "reasons": {"unreadable": 1, "no_truth": 1, "not_generated": 1},
    }


def test_first_frame_is_held_against_the_given_image(tmp_path):
    rows = [
        sample(tmp_path, "ti2v-0", "ti2v", image="a.png"),
        sample(tmp_path, "ti2v-1", "ti2v", image="b.png"),
    ]
    first = [np.load(tmp_path / row["file"])[0] for row in rows]
    cv2.imwrite(str(tmp_path / "a.png"), first[0][..., ::-1])
    one_off = np.where(first[1] < 255, first[1] + 1, first[1] - 1).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "b.png"), one_off[..., ::-1])
    found = [row["psnr"] for row in judged(tmp_path, *rows)["verdicts"]]
    assert found == pytest.approx([judge.BEST_PSNR, 48.1308], abs=1e-3)  # 20 log10(255)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(8, 8, 3\)"):
        judge.psnr(np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8))


def test_no_samples_names_the_stage_that_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="dvc repro samples"):
        suites.shapes(tmp_path)
