"""The default thresholds, on real shots and on the same spoilt: what docs/scores.md says of them."""

from itertools import pairwise

import cv2
import pytest

from benchmarks import gate_spoilt, stability_shots
from benchmarks.stability_shots import Shot
from flows.params import load_params
from tasks.clips import thresholds
from tasks.decoding import measures
from tasks.decoding.decode import Picture
from tasks.demo import corpus

LIVELY = (32, 78)  # frames of bikes.mp4 in which people and cars race past
FRAMES = 16


@pytest.fixture(scope="module")
def lively() -> list[Shot]:
    frames = stability_shots.frames(corpus.packaged_file("bikes"), 0, max(LIVELY) + FRAMES)
    small = [cv2.resize(frame, (256, 108), interpolation=cv2.INTER_AREA) for frame in frames]
    return [Shot(f"bikes at {first}", small[first : first + FRAMES]) for first in LIVELY]


def missed(shot: Shot) -> set[str]:
    """Return the default limits of the decoding pass that a shot is outside of."""
    greys = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in shot.frames]
    pictures = [
        Picture(place, place, 1, bgr, cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV), grey, grey, is_measured=True)
        for place, (bgr, grey) in enumerate(zip(shot.frames, greys, strict=True))
    ]
    pairs = list(pairwise(pictures))
    glances = [measures.glance(None, pictures[0])] + [measures.glance(*pair) for pair in pairs]
    row = measures.summarise(glances, [measures.measure(*pair) for pair in pairs[::5]])
    limits = thresholds.rules(load_params().clips).limits
    return {limit.reason for limit in limits if limit.score in row and limit.is_missed_by(row[limit.score])}


def test_lively_clean_shots_are_kept(lively):
    assert [missed(shot) for shot in lively] == [set(), set()]


@pytest.mark.parametrize(
    ("fault", "step", "reason"),
    [
        ("noise", 80, "temporal_consistency_below_min"),
        ("lamp", 0.2, "flicker_above_max"),
        ("frames held", 12, "frozen_above_max"),
        ("blurred", 3.2, "clarity_below_min"),
        ("darkened", 0.05, "brightness_below_min"),
        ("pillars", 0.68, "black_bars_above_max"),
    ],
)
def test_the_same_shots_spoilt_are_rejected_for_what_was_done(lively, fault, step, reason):
    for shot in lively:
        assert reason in missed(gate_spoilt.spoilt(shot, fault, step))
