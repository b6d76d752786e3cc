from itertools import pairwise

import numpy as np
import pytest

from flows.params import load_params
from tasks.decoding import cuts, measures
from tasks.videos import shot_rules

TICKS = 1000  # per second


@pytest.fixture(scope="module")
def rules() -> cuts.Rules:
    given = shot_rules.rules_of(load_params().shots) | {"min_seconds": 1.0, "max_seconds": 10.0}
    given.pop("analysis_pixels")
    return cuts.Rules(**given, fps=25.0)


def rows_of(times: list[int], rules: cuts.Rules) -> list[dict]:
    """Return the rows of one shot whose frames begin at `times`, but for the last, which is its end."""
    count = len(times) - 1
    piece = cuts.Piece(0, "start", rules, count)
    piece.glances = [measures.FrameStats(0.5, 1.0)] * count
    picture = np.zeros((48, 48, 3), np.uint8)
    piece.stills = [(frame, picture) for frame in range(count)]
    return list(cuts.shots_of([piece], times, 1 / TICKS, rules))


@pytest.mark.parametrize("seed", range(20))
def test_a_long_shot_of_any_rate_is_split_so_that_every_frame_is_in_one_part(rules, seed):
    random = np.random.default_rng(seed)
    lengths = random.choice([20, 40, 500, 4000, 30_000, 10**8], 60, p=[0.4, 0.3, 0.2, 0.05, 0.04, 0.01])
    times = [0, *np.cumsum(lengths).tolist()]
    rows = rows_of(times, rules)
    assert (rows[0]["start_pts"], rows[-1]["end_pts"]) == (0, times[-1])
    assert all(before["end_pts"] == after["start_pts"] for before, after in pairwise(rows))
    assert sum(row["frames"] for row in rows) == len(lengths) and min(row["frames"] for row in rows) > 0
    for row in rows:
        held = [
            length for start, length in zip(times, lengths, strict=False) if row["start_pts"] <= start < row["end_pts"]
        ]
        assert (row["status"] == "ok") == (max(held) <= 10 * TICKS)
        if row["status"] == "ok":
            assert row["end"] - row["start"] <= 10 + max(held) / TICKS


def test_a_steady_shot_is_split_evenly(rules):
    rows = rows_of([40 * frame for frame in range(701)], rules)  # 28 s
    assert [row["frames"] for row in rows] == [233, 233, 234]


def test_a_frame_that_claims_to_last_for_years_makes_no_more_rows_than_there_are_frames(rules):
    rows = rows_of([0, 40, 80, 10**12], rules)
    assert [(row["frames"], row["status"]) for row in rows][-1] == (1, "rejected")
    assert len(rows) <= 3
