"""Clips by the source of their videos, and a draw that no small source is lost in."""

from tasks.comparison.clip_groups import MOST_GROUPS, OTHERS, Source, draw, group


def named(uris, has_text=lambda uri: True):
    return group(Source(f"clip {number}", uri, has_text(uri)) for number, uri in enumerate(uris))


def test_the_first_folder_below_the_one_that_all_share_names_a_group():
    found = named([*(f"s3://b/raw/shapes/{n}.mp4" for n in range(3)), "s3://b/raw/real/deep/x.mp4"])
    assert found == {"shapes/": ["clip 0", "clip 1", "clip 2"], "real/": ["clip 3"]}


def test_in_one_folder_a_text_beside_the_video_tells_apart():
    found = named(["a.mp4", "b.mp4", "c.mp4"], lambda uri: uri != "b.mp4")
    assert found == {
        "with a text beside the video": ["clip 0", "clip 2"],
        "without a text beside the video": ["clip 1"],
    }
    both = named(["x/a.mp4", "x/b.mp4", "y/c.mp4"], lambda uri: uri != "x/b.mp4")
    assert list(both) == ["x/ with a text beside the video", "x/ without a text beside the video", "y/"]


def test_many_folders_are_the_largest_and_all_others_together():
    found = named([f"{n:03}/{m}.mp4" for n in range(20) for m in range(3 if n < MOST_GROUPS else 1)])
    assert list(found)[:-1] == [f"{n:03}/" for n in range(MOST_GROUPS)]
    assert len(found[OTHERS]) == 20 - MOST_GROUPS


def test_as_many_of_each_group_are_drawn_and_all_of_a_small_one():
    groups = {
        "large": [f"l{n}" for n in range(300)],
        "small": [f"s{n}" for n in range(7)],
        "mid": list(map(str, range(60))),
    }
    drawn = draw(groups, 100, seed=0)
    counts = {name: list(drawn.values()).count(name) for name in groups}
    assert counts == {"large": 47, "small": 7, "mid": 46}
    assert draw(groups, 100, seed=0) == drawn != draw(groups, 100, seed=1)
    assert set(draw(groups, 1000, seed=0)) == {clip for clips in groups.values() for clip in clips}
    assert list(drawn.values())[:20].count("large") > 3  # in random order, not group by group
