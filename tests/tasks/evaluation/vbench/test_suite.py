"""The suite is VBench's; names, seeds and texts of its videos are what they should be."""

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from tasks.evaluation.vbench import suite
from tasks.evaluation.vbench.conventions import convention


def test_the_suite_has_the_entries_prompts_and_videos_of_vbench():
    entries = suite.entries()
    assert (len(entries), len({entry.prompt for entry in entries}), len(suite.planned())) == (946, 944, 6220)
    counts = Counter(dimension for entry in entries for dimension in entry.dimensions)
    assert counts == {
        **dict.fromkeys(("subject_consistency", "motion_smoothness", "dynamic_degree"), 72),
        **dict.fromkeys(("background_consistency", "scene"), 86),
        **dict.fromkeys(("aesthetic_quality", "imaging_quality", "overall_consistency"), 93),
        **dict.fromkeys(("human_action", "temporal_style"), 100),
        **{"temporal_flickering": 75, "object_class": 79, "multiple_objects": 82, "color": 85},
        **{"spatial_relationship": 84, "appearance_style": 90},
    }
    assert set(counts) == set(convention("t2v").counted)


def test_names_are_distinct_numbered_from_zero_and_25_for_flicker():
    videos = suite.planned()
    assert len({video.name for video in videos}) == len({video.seed for video in videos}) == len(videos)
    of_prompt = Counter(video.prompt for video in videos)
    assert set(of_prompt.values()) == {5, 25} and list(of_prompt.values()).count(25) == 75
    assert [video.name for video in videos if video.prompt == "a person"] == [f"a person-{i}.mp4" for i in range(5)]


def test_a_prompt_of_two_entries_has_its_videos_once_and_the_dimensions_of_both():
    found = [video for video in suite.planned() if video.prompt == "The bund Shanghai, oil painting"]
    assert len(found) == 5
    assert set(found[0].dimensions) == {
        *("appearance_style", "overall_consistency", "aesthetic_quality", "imaging_quality")
    }


def test_dimensions_choose_the_videos_that_they_are_measured_on():
    assert len(suite.planned(dimensions=["temporal_flickering"])) == 75 * 25
    assert len(suite.planned(dimensions=["color", "scene"])) == (85 + 86) * 5
    with pytest.raises(ValueError, match=r"colour is no dimension of the suite: did you mean color\?"):
        suite.planned(dimensions=["colour"])


def test_the_seed_is_what_the_manifest_says_it_is():
    video = next(video for video in suite.planned() if video.name == "a person-3.mp4")
    assert video.seed == int(sha256(b"a person\n3").hexdigest()[:12], 16)


def test_shards_part_the_videos_and_share_each_prompt_s_work():
    videos = suite.planned()
    parts = [suite.shard(videos, f"{part}/8") for part in range(1, 9)]
    assert sorted(video.name for part in parts for video in part) == sorted(video.name for video in videos)
    assert {len(part) for part in parts} == {777, 778}
    for wrong in ("0/8", "9/8", "3", "1/2/3", "a/b", "-1/8"):
        with pytest.raises(ValueError, match="no part of a whole: write 3/8"):
            suite.shard(videos, wrong)
    with pytest.raises(ValueError, match="there are 6220 videos, too few"):
        suite.shard(videos, "6221/6221")


def rewritten(tmp_path: Path, lines: list[str]) -> Path:
    file = tmp_path / "longer.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_rewritten_prompts_reach_the_model_and_names_keep_the_original(tmp_path):
    longer = [f"{entry.prompt}, number {number}" for number, entry in enumerate(suite.entries(), 1)]
    texts = suite.read_texts(rewritten(tmp_path, longer), suite.entries())
    videos = {video.name: video for video in suite.planned(texts)}
    plain = {video.name: video for video in suite.planned()}
    assert videos.keys() == plain.keys() and all(plain[name].seed == video.seed for name, video in videos.items())
    assert videos["a person-0.mp4"].text == "a person, number 330" and plain["a person-0.mp4"].text == "a person"
    assert suite.twice_rewritten(texts, suite.entries()) == [(504, 747), (496, 749)]
    assert videos["The bund Shanghai, oil painting-0.mp4"].text.endswith("number 504")
    assert suite.twice_rewritten([entry.prompt for entry in suite.entries()], suite.entries()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:-1], "has 945 lines, and the suite has 946 entries"),
        (lambda lines: [*lines, "one more"], "has 947 lines, and the suite has 946 entries"),
        (lambda lines: [*lines[:4], " ", *lines[5:]], "line 5 is empty"),
    ],
)
def test_a_prompts_file_that_does_not_fit_is_refused(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        suite.read_texts(rewritten(tmp_path, change([entry.prompt for entry in suite.entries()])), suite.entries())


def test_a_prompts_file_that_is_no_utf_8_is_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes("façades\n".encode("latin-1") * 946)
    with pytest.raises(ValueError, match="is no UTF-8"):
        suite.read_texts(tmp_path / "latin.txt", suite.entries())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a/b-0.mp4", "leads elsewhere"),
        ("..-0.mp4", "leads elsewhere"),
        ("../../etc/passwd-0.mp4", "leads elsewhere"),
        (".hidden-0.mp4", "leads elsewhere"),
        ("a\nb-0.mp4", "control character"),
        ("a\x00b-0.mp4", "control character"),
        ("é" * 124 + "-0.mp4", None),
        ("é" * 125 + "-0.mp4", "a name of 256 bytes"),
    ],
)
def test_names_that_a_folder_cannot_hold_are_refused(name, said):
    if said is None:
        suite.check_names([name], is_case_kept=True)
        return
    with pytest.raises(ValueError, match=said) as stop:
        suite.check_names(["a dog-0.mp4", name], is_case_kept=True)
    assert "\n" not in str(stop.value)


def test_all_names_of_the_suite_fit_where_case_is_kept_and_not_where_it_is_not():
    names = [video.name for video in suite.planned()]
    suite.check_names(names, is_case_kept=True)
    with pytest.raises(
        ValueError, match=r"10 names differ from another in case only, 'a fantasy landscape-0.mp4' the f"
    ):
        suite.check_names(names, is_case_kept=False)


def test_whether_a_disk_keeps_case_is_tried_and_leaves_nothing(tmp_path):
    kept = suite.keeps_case(tmp_path)
    (tmp_path / "x").touch()
    assert kept is not (tmp_path / "X").exists() and [path.name for path in tmp_path.iterdir()] == ["x"]


def suite_file(tmp_path: Path, rows: object) -> Path:
    file = tmp_path / "info.json"
    file.write_text(json.dumps(rows))
    return file


def test_a_suite_of_images_is_read_from_the_user_s_copy(tmp_path):
    rows = [
        {"prompt_en": "a cliff", "dimension": ["i2v_background"], "image_type": "scenery", "image_name": "a cliff.jpg"},
        {"prompt_en": "a cliff, camera pans left", "dimension": ["camera_motion"], "image_name": "a cliff.jpg"},
    ]
    entries = suite.read_suite(suite_file(tmp_path, rows))
    videos = suite.planned(of=entries)
    assert [video.name for video in videos[:2]] == ["a cliff-0.mp4", "a cliff-1.mp4"] and len(videos) == 10
    assert {video.image for video in videos} == {"a cliff.jpg"}
    assert len(suite.planned(dimensions=["camera_motion"], of=entries)) == 5


ROW = {"prompt_en": "a dog", "dimension": ["i2v_subject"], "image_name": "dog.jpg"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [ROW, {"prompt_en": "a cat", "dimension": ["i2v_subject"]}],
            "1 of 2 entries have no image_name, 'a cat' the f",
        ),
        ([ROW, ROW | {"image_name": "other.jpg"}], "'a dog' has two images"),
        ([], "is no list of prompts"),
        ([ROW | {"dimension": []}], "is no list of prompts"),
        ([ROW | {"prompt_en": 3}], "is no list of prompts"),
        ([{"prompt": "a dog"}], "is no list of prompt_en and dimension: KeyError"),
        ({"prompt_en": "a dog"}, "is no list of prompt_en and dimension: TypeError"),
    ],
)
def test_a_suite_file_that_is_none_is_refused(tmp_path, rows, said):
    with pytest.raises(ValueError, match=said):
        suite.read_suite(suite_file(tmp_path, rows))
