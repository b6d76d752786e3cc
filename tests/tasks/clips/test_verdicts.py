"""The table that stage clips writes is the one that the rules give, row by row in Python, to the last bit."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from tasks.clips import select
from tasks.clips.settings import BestSettings, ClipSettings
from tasks.storage import queries, tables
from tests.tasks.clips import plain_select
from tests.tasks.clips.odd_rows import SETTINGS, random_rows


def judged(folder: Path, rows: list[dict], settings: ClipSettings) -> list[dict]:
    """Return what the stage writes of a table of these rows."""
    folder.mkdir(exist_ok=True)
    scores, out = folder / "scores.parquet", folder / "clips.parquet"
    tables.write_rows(scores, rows, tables.SCORES)
    with queries.connect(folder) as connection:
        select.judge_shots(connection, scores, settings, out)
    return tables.read_rows(out, tables.CLIPS)


def as_written(rows: list[dict]) -> list[str]:
    return [repr({name: row[name] for name in tables.CLIPS.names}) for row in rows]  # nan is nan there


def passing(names: list[str]) -> list[dict]:
    """Shots that pass, each of a video hash of its own."""
    even = dict.fromkeys(tables.SCORES.names) | dict.fromkeys(SETTINGS_SCORES, 0.5)
    even |= {"status": "ok", "orientation": "square", "start_pts": 0, "end_pts": 48, "time_base": "1/24"}
    even |= {"width": 640, "height": 640}
    return [even | {"clip": name, "video_hash": np.random.default_rng(n).bytes(32)} for n, name in enumerate(names)]


SETTINGS_SCORES = [name for name in tables.SCORES.names if tables.SCORES.field(name).type == "double"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"duplicate_bits": 24, "best": BestSettings(clips=20, by="motion")},
        {"duplicate_bits": 0, "duplicate_similarity": 0.9},
        {"best": BestSettings(clips=1, by="quality"), "orientations": []},
    ],
)
def test_the_table_is_that_of_the_rules_row_by_row(tmp_path, changes):
    settings, rows = SETTINGS.model_copy(update=changes), random_rows(7, 500)
    assert as_written(judged(tmp_path, rows, settings)) == as_written(
        plain_select.judge_shots(tables.ok(rows), settings)
    )


def test_more_rows_than_a_group_keep_their_order(tmp_path):
    rows = random_rows(8, 400) * 24
    found = judged(tmp_path, rows, SETTINGS)
    assert len(found) > 2 * queries.GROUP_ROWS
    assert as_written(found) == as_written(plain_select.judge_shots(tables.ok(rows), SETTINGS))


TIES = [
    {"quality": 0.0, "width": 320, "height": 640},
    {"quality": -0.0, "width": 640, "height": 320},
    {"quality": 0.0, "width": 512, "height": 400},
]


@pytest.mark.parametrize("order", permutations(range(3)))
def test_of_equal_merits_the_first_name_stays_whatever_the_order(tmp_path, order):
    rows = [row | tie | {"video_hash": bytes(32)} for row, tie in zip(passing(["b", "a", "c"]), TIES, strict=True)]
    free = SETTINGS.quality.model_copy(update={"min": None})
    settings = SETTINGS.model_copy(update={"duplicate_bits": 0, "quality": free})
    found = judged(tmp_path, [rows[place] for place in order], settings)
    assert {row["clip"]: row["duplicate_of"] for row in found} == {"a": None, "b": "a", "c": "a"}
    best = SETTINGS.model_copy(update={"quality": free, "best": BestSettings(clips=1, by="quality")})
    found = judged(tmp_path, [rows[place] for place in order], best)
    assert [row["clip"] for row in found if row["status"] == "ok"] == ["a"]


def test_names_are_only_names(tmp_path):
    names = ["it's", 'a "clip"', "'; DROP TABLE later; --", "$1", "é", "\U0001f600", "%", "\\", ""]
    rows = [row | {"video_hash": bytes(32)} for row in passing(names)]
    settings = SETTINGS.model_copy(update={"duplicate_bits": 24})
    found = judged(tmp_path / "a 'folder'; --", rows, settings)
    assert as_written(found) == as_written(plain_select.judge_shots(rows, settings))
    assert [row["clip"] for row in found] == names


@pytest.mark.parametrize("count", [0, 1])
def test_one_row_and_none(tmp_path, count):
    settings = SETTINGS.model_copy(update={"duplicate_bits": 24, "best": BestSettings(clips=1, by="quality")})
    assert [row["status"] for row in judged(tmp_path, passing(["a"])[:count], settings)] == ["ok"] * count


def test_times_far_beyond_any_video_cost_no_other_shot_its_verdict(tmp_path):
    one, other = passing(["a", "b"])
    far = one | {"start_pts": -(2**62), "end_pts": 2**62, "time_base": "2147483647/1"}
    rows = judged(tmp_path, [far, other], SETTINGS)
    assert [row["reason"] for row in rows] == ["seconds_above_max", None]
