"""Parts of a folder stay as they are while videos are added."""

import hashlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.storage import parts, stills, tables
from tests.made_stills import write_stills


def names(count: int) -> list[str]:
    return sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(count))


@given(st.integers(1, 200_000))
def test_a_part_has_one_or_two_videos_while_there_are_not_too_many(videos):
    count = parts.choose(videos, None)
    assert count == 16384 or 1 <= videos / count < 2


def test_the_number_of_the_run_before_stays_while_it_fits():
    assert parts.choose(130, 64) == 64
    assert parts.choose(60, 64) == 64
    assert parts.choose(64 * 64 + 1, 64) == 4096


@pytest.mark.parametrize("count", [1, 2, 64, 16384])
def test_parts_follow_the_order_of_the_names_and_are_the_same_for_a_video_and_its_clips(count):
    videos = names(500)
    numbers = parts.numbers(videos, count)
    assert (numbers[1:] >= numbers[:-1]).all()
    assert numbers.min() >= 0
    assert numbers.max() < count
    assert numbers.tolist() == [parts.number(tables.clip_id(video, 0, 9), count) for video in videos]


def test_a_hundredth_more_videos_touch_a_twentieth_of_the_parts_at_most():
    videos = names(1010)
    count = parts.choose(1000, None)
    assert len(set(parts.numbers(videos[::101], count).tolist())) <= 0.05 * count


def test_a_number_of_parts_that_was_changed_by_hand_is_refused(tmp_path):
    clips = {f"{video[:20]}-0-9": [b"picture"] for video in names(8)}
    write_stills(tmp_path, clips, 4)
    assert stills.read(tmp_path, list(clips)) == clips
    path = tmp_path / stills.FOLDER / parts.FILE
    path.write_text(path.read_text().replace('"parts": 4', '"parts": 8'))
    with pytest.raises(ValueError, match=r"8 parts.*another one.*run stage shots again|no stills of"):
        stills.read(tmp_path, list(clips))


@pytest.mark.parametrize("text", ["", "{}", '{"parts": 0}', '{"parts": "x"}', '{"parts": true}', "[1]"])
def test_a_damaged_list_of_parts_is_refused(tmp_path, text):
    (tmp_path / parts.FILE).write_text(text)
    with pytest.raises(ValueError, match=rf"{parts.FILE}.*make .* again"):
        parts.count(tmp_path)


def test_only_shots_whose_stills_are_others_have_changed(tmp_path):
    clips = {f"{video[:20]}-0-9": [video.encode()] for video in names(40)}
    some = dict(list(clips.items())[:30])
    changed, new = list(some)[3], list(clips)[35]
    write_stills(tmp_path / "before", some, 8)
    write_stills(tmp_path / "now", some | {changed: [b"another"], new: clips[new]}, 8)
    all_now = sorted([*some, new])
    are_same = stills.Changes(tmp_path / "before", tmp_path / "now").are_same(pa.chunked_array([all_now]))
    assert [clip for clip, is_same in zip(all_now, are_same, strict=True) if not is_same] == sorted([changed, new])
    write_stills(tmp_path / "others", some, 2)  # in another number of parts, and the same
    assert stills.Changes(tmp_path / "before", tmp_path / "others").are_same(pa.chunked_array([sorted(some)])).all()
