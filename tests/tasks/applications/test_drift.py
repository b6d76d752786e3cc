"""The drift of a long video: judged per window, and jumps found where they are."""

import numpy as np
import pytest

from tasks.applications.drift import drift, seams
from tasks.demo.look import Look
from tasks.demo.shapes import render, scene

LOOK = Look(size=(0.4, 0.42), travel=(0.3, 0.32), backgrounds=("plain",))


def clip(number: int, frames: int) -> tuple[np.ndarray, str]:
    one = scene(0, number, False, LOOK)
    return render(one, 64, frames), f"a {one.colour} {one.shape} moves {one.direction}"


def test_what_becomes_another_object_is_seen_in_the_window_where_it_does():
    (first, text), (other, _) = clip(0, 10), clip(1, 10)
    spoilt = np.concatenate([first[:4], other[4:]])
    found = drift([first, spoilt], [text, text], 4)
    assert [one.window for one in found] == [1, 2, 3]
    assert [one.colour.right for one in found] == [2, 1, 1]
    assert found[0].shape.right == 2 and found[0].colour.low < found[0].colour.share


def test_a_jump_at_a_seam_is_told_from_one_inside_a_window():
    video, _ = clip(0, 13)
    smooth = seams(video, 4)
    assert smooth.ratio < 1.3
    at_seam, inside = video.copy(), video.copy()
    at_seam[6:] //= 2  # frame 6 is a key frame
    inside[8:] //= 2
    assert seams(at_seam, 4).ratio > 3 and seams(at_seam, 4).inside == pytest.approx(smooth.inside, rel=0.5)
    assert seams(inside, 4).ratio < 1


def test_what_has_no_seam_or_says_no_object_is_refused():
    video, _ = clip(0, 4)
    with pytest.raises(ValueError, match="4 frames in windows of 4 have no seam"):
        seams(video, 4)
    with pytest.raises(ValueError, match='"clouds" says no colour'):
        drift([video], ["clouds"], 4)
