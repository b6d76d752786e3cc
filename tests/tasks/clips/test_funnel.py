"""The replay in DuckDB: that it agrees with stage clips to the last bit, and what it tells besides."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.clips import thresholds
from tasks.clips.funnel import borderline_shots, middle_stills, replay
from tasks.clips.settings import BestSettings, NonNegativeRange
from tasks.pages.funnel_page import page, picture
from tasks.storage import tables
from tests.made_stills import write_stills
from tests.tasks.clips.odd_rows import COLUMNS, SETTINGS, random_rows
from tests.tasks.clips.plain_select import judge_shots, tally


def write(folder: Path, rows: list[dict]) -> Path:
    tables.write_rows(folder / "scores.parquet", rows, tables.SCORES)
    return folder / "scores.parquet"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nsfw": NonNegativeRange(min=None, max=0.5)},
        {"duplicate_bits": 24},
        {"duplicate_similarity": 0.9},
        {"duplicate_bits": 24, "duplicate_similarity": 0.9, "best": BestSettings(clips=20, by="clarity")},
        {"duplicate_bits": 0, "best": BestSettings(clips=20, by="quality")},
        {"best": BestSettings(clips=7, by="motion"), "orientations": []},
    ],
)
def test_the_replay_is_the_funnel_of_the_stage_to_the_last_bit(tmp_path, changes):
    settings = SETTINGS.model_copy(update=changes)
    table = write(tmp_path, random_rows(len(changes), 600))
    given = tables.ok(tables.read_rows(table, tables.SCORES))
    lost = tally(judge_shots(given, settings))
    assert len(lost) > 6  # reasons: the rows are of many kinds
    found = replay(table, settings)
    assert found.lost == lost
    assert found.funnel == thresholds.funnel(lost, settings)


def test_earlier_releases_cost_the_same_twins_as_in_the_stage(tmp_path):
    rows = random_rows(5, 200)
    release = tmp_path / "release.parquet"
    before = [row | {"clip": f"old-{row['clip']}"} for row in random_rows(6, 100) if row["embedding"]]
    tables.write_rows(release, judge_shots(before, SETTINGS), tables.CLIPS)
    changes = {"duplicate_bits": 24, "duplicate_similarity": 0.9, "earlier_releases": [str(release)]}
    settings = SETTINGS.model_copy(update=changes)
    judged = judge_shots(tables.ok(rows), settings, tables.ok(tables.read_rows(release, tables.CLIPS)))
    assert replay(write(tmp_path, rows), settings).lost == tally(judged)
    assert any((row["duplicate_of"] or "").startswith("old-") for row in judged)


def test_the_shift_is_of_shares_before_and_after(tmp_path):
    kinds = [("landscape", None, 0.5), ("landscape", "a", 0.1), ("square", "a", 0.5), ("square", "b", 0.5)]
    rows = [
        row | {"orientation": orientation, "caption": caption, "motion": motion, "transition": "cut"}
        for row, (orientation, caption, motion) in zip(good_rows(4), kinds, strict=True)
    ]
    shift = {(one.category, one.value): (one.scored, one.kept) for one in replay(write(tmp_path, rows), SETTINGS).shift}
    assert shift["orientation", "landscape"] == (0.5, 1 / 3)
    assert shift["orientation", "square"] == (0.5, 2 / 3)
    assert shift["caption", "without"] == (0.25, 1 / 3)
    assert shift["begins with", "cut"] == (1.0, 1.0)
    assert shift["main colour", "red"] == (1.0, 1.0)


def good_rows(count: int) -> list[dict]:
    even = dict.fromkeys(COLUMNS, 0.5) | {"height": 720, "width": 640, "status": "ok", "orientation": "square"}
    even |= {"colours": ["red", "grey"], "start_pts": 0, "end_pts": 48, "time_base": "1/24"}
    return [dict.fromkeys(tables.SCORES.names) | even | {"clip": f"s{number}"} for number in range(count)]


def test_borders_name_the_nearest_on_both_sides_and_only_what_that_threshold_decides(tmp_path):
    motions = [0.1, 0.2, 0.29, 0.3, 0.31, 0.5, 0.89, 0.95]
    rows = [row | {"motion": motion} for row, motion in zip(good_rows(8), motions, strict=True)]
    rows[3]["quality"] = 0.2  # lost, but by another threshold
    found = {one.limit.key: one for one in borderline_shots(write(tmp_path, rows), SETTINGS, 2)}
    least, most, quality = (found[f"clips.{key}"] for key in ("motion.min", "motion.max", "quality.min"))
    assert least.kept == [("s4", 0.31), ("s5", 0.5)]
    assert least.lost == [("s2", 0.29), ("s1", 0.2)]
    assert (most.kept, most.lost) == ([("s6", 0.89), ("s5", 0.5)], [("s7", 0.95)])
    assert quality.lost == [("s3", 0.2)]


def test_the_still_is_from_the_middle_and_a_shot_without_one_is_an_error(tmp_path):
    write_stills(tmp_path, {"a0": [b"a", b"b", b"c"]})
    assert middle_stills(tmp_path, ["a0"]) == {"a0": b"b"}
    with pytest.raises(ValueError, match=rf"{tmp_path}/stills .*\ba1\b"):
        middle_stills(tmp_path, ["a0", "a1"])


def test_a_table_of_other_columns_and_none_at_all_are_refused(tmp_path):
    table = write(tmp_path, good_rows(1))
    pq.write_table(pq.read_table(table).drop_columns(["quality"]), table)
    with pytest.raises(ValueError, match=rf"{table} .*\bquality\b"):
        replay(table, SETTINGS)
    with pytest.raises(FileNotFoundError, match=r"none\.parquet .*dvc repro"):
        replay(tmp_path / "none.parquet", SETTINGS)


def test_a_folder_with_a_quote_in_its_name_is_only_a_folder(tmp_path):
    folder = tmp_path / "it's ours"
    folder.mkdir()
    assert replay(write(folder, good_rows(2)), SETTINGS).funnel[-1]["clips"] == 2


def test_the_page_shows_each_shot_beside_its_threshold_and_escapes_names(tmp_path):
    rows = good_rows(2)
    rows[1] |= {"clip": "<b>", "motion": 0.1}
    table = write(tmp_path, rows)
    text = page(replay(table, SETTINGS).funnel, borderline_shots(table, SETTINGS, 3), {"s0": b"jpeg", "<b>": b"jpeg"})
    assert "<b>0.1</b> &lt;b&gt;" in text
    assert "clips.motion.min" in text
    assert "src='data:image/jpeg;base64," in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_the_figure_stands_alone():
    steps = thresholds.funnel({None: thresholds.Amount(2, 4_000_000)}, SETTINGS)
    drawn = picture(steps)
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "--accent:#" in drawn
    assert "2 clips" in drawn
