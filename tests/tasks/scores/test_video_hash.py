import cv2
import numpy as np
import pytest

from tasks.scores.video_hash import BITS, distance, video_hash

# Signs of independent pictures agree by chance: 128 of 256 differ, with a standard deviation of 8, or of 16 where one
# still of 64 bits stands for all four
UNRELATED = 128 - 3 * 16
FEW = BITS // 16


def test_the_same_stills_in_another_encoding_differ_in_few_bits(real_frames, through_h264, still):
    again = [still(through_h264(frame, 32)) for frame in real_frames]
    assert distance(video_hash([still(frame) for frame in real_frames]), video_hash(again)) <= FEW


def test_a_copy_of_twice_or_half_the_size_differs_in_few_bits(real_frames, twice_the_size):
    stills = video_hash(real_frames)
    assert distance(stills, video_hash([twice_the_size(frame) for frame in real_frames])) <= FEW
    assert distance(stills, video_hash([frame[::2, ::2] for frame in real_frames])) <= FEW


def test_a_slightly_brighter_copy_differs_in_few_bits(real_frames):
    brighter = [cv2.convertScaleAbs(frame, alpha=1.05, beta=8) for frame in real_frames]
    assert distance(video_hash(real_frames), video_hash(brighter)) <= FEW


def test_real_shots_are_far_from_each_other(real_frames):
    hashes = [video_hash([frame]) for frame in real_frames]
    assert min(distance(one, other) for at, one in enumerate(hashes) for other in hashes[:at]) > UNRELATED


def test_one_still_of_another_scene_shows(real_frames):
    changed = [*real_frames[:3], real_frames[0]]
    assert distance(video_hash(real_frames), video_hash(changed)) > UNRELATED / 4


def test_the_order_of_the_stills_shows(real_frames):
    assert distance(video_hash(real_frames), video_hash(real_frames[::-1])) > UNRELATED


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_a_hash_has_one_length_however_many_stills(real_frames, count):
    assert len(video_hash((real_frames * 3)[:count])) == BITS // 8


def test_shots_without_detail_have_one_hash():
    noise = np.random.default_rng(0).integers(0, 2, (72, 128, 3), np.uint8)
    assert distance(video_hash([noise]), video_hash([np.zeros((72, 128, 3), np.uint8)])) == 0


def test_no_still_is_an_error():
    with pytest.raises(ValueError, match="one picture at least"):
        video_hash([])


def test_distance_counts_bits():
    assert distance(bytes(32), b"\x81" + bytes(30) + b"\x01") == 3
