"""The drift of a long video: judged per window, and jumps found where they are."""

import numpy as np
import pytest

from tasks.demo.look import Look
from tasks.demo.shapes import render, scene
from tasks.evaluation.drift import Long, Way, drift, measure, seams, ways
from tasks.generation import there_and_back

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


def there_and_back_of(number: int, windows: int = 10) -> Long:
    one = scene(0, number, False, LOOK)
    prompts = there_and_back.prompts_of(one, leg=6, window=4, windows=windows)
    truth = there_and_back.truth_of(render(one, 64, 7), 3 * windows + 1)
    return Long(truth, truth, prompts, 4)


def test_an_object_turns_where_its_prompt_does():
    video = there_and_back_of(0, windows=5)
    there, back = video.prompts[0], video.prompts[3]
    assert video.prompts == [there, there, there, back, back, there]
    assert ways(video.prompts, 4) == [Way(0, 6, there), Way(6, 12, back)]  # the last way is cut short
    assert len(video.truth) == 16
    assert np.array_equal(video.truth[6 - 2], video.truth[6 + 2]) and np.array_equal(video.truth[0], video.truth[12])


def test_what_is_as_it_should_be_has_no_fault():
    found = measure([there_and_back_of(0), there_and_back_of(1)])
    assert (found["videos"], found["windows"], found["window_frames"]) == (2, 10, 4)
    assert (found["direction"]["right"], found["direction"]["of"]) == (10, 10)
    assert found["made_psnr"] == found["given_psnr"] == 100 > found["repeated_psnr"]
    assert found["seams"]["median"] == found["true_seams"] < 1.3
    assert [*found["drift"]] == [str(window) for window in range(1, 11)]
    assert all(one["colour"]["right"] == one["shape"]["right"] == 2 for one in found["drift"].values())


def test_an_object_that_goes_the_other_way_has_not_kept_its_direction():
    video = there_and_back_of(0)
    found = measure([video._replace(video=video.video[6:7].repeat(31, axis=0))])
    assert found["direction"]["right"] == 0


def test_of_no_long_video_there_is_no_figure():
    assert measure([]) == {"videos": 0}
