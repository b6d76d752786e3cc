from pathlib import Path

import pytest

from tasks.pages.gallery import Filters, Gallery
from tasks.storage import tables
from tests.made_stills import write_stills

ALL = Filters({}, [], [], "")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four clips, of which one is rejected, and a shot that was too short to be scored."""
    shots = [
        {"clip": f"a{place}", "uri": f"{place}.mp4", "start": float(place), "end": place + 2.0, "motion": float(place)}
        for place in range(4)
    ]
    clips = [row | {"status": "ok", "aesthetic": 5.0 - place} for place, row in enumerate(shots)]
    clips[3] |= {"status": "rejected", "reason": "motion_above_max", "aesthetic": None}
    short = {"clip": "a4", "uri": "holiday.mp4", "status": "rejected", "reason": "too_short", "start": 0.0, "end": 0.1}
    captions = [{"clip": f"a{place}", "text": f"A Red car {place}", "captioner": "sidecar"} for place in range(3)]
    for stage, rows, schema in (
        ("shots", [*shots, short], tables.SHOTS),
        ("clips", clips, tables.CLIPS),
        ("captions", captions, tables.CAPTIONS),
    ):
        (tmp_path / stage).mkdir()
        tables.write_rows(tmp_path / stage / f"{stage}.parquet", rows, schema)
    write_stills(tmp_path / "shots", {"a1": [b"one", b"two"]})
    return tmp_path


def shots(found: tuple) -> list[str]:
    return [row["clip"] for row in found[2]]


def test_every_shot_is_there_with_what_the_last_stage_says_of_it(data: Path):
    count, hours, rows = Gallery(data).find(ALL, "clip", False)
    assert (count, hours) == (5, pytest.approx(8.1 / 3600))
    assert [(row["clip"], row["status"], row["reason"], row["text"]) for row in rows] == [
        ("a0", "ok", None, "A Red car 0"),
        ("a1", "ok", None, "A Red car 1"),
        ("a2", "ok", None, "A Red car 2"),
        ("a3", "rejected", "motion_above_max", None),
        ("a4", "rejected", "too_short", None),
    ]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ALL._replace(within={"motion": (1.0, 2.0)}), ["a1", "a2"]),
        (ALL._replace(statuses=["rejected"]), ["a3", "a4"]),
        (ALL._replace(reasons=["too_short"]), ["a4"]),
        (ALL._replace(words="red CAR"), ["a0", "a1", "a2"]),
        (ALL._replace(words="holiday"), ["a4"]),
        (ALL._replace(words="' OR 1=1 --"), []),
        (ALL._replace(words="%"), []),
    ],
)
def test_only_what_is_wanted_is_found(data: Path, wanted: Filters, expected: list[str]):
    found = Gallery(data).find(wanted, "clip", False)
    assert (found[0], shots(found)) == (len(expected), expected)


def test_rows_come_in_the_order_asked_for_and_those_without_the_score_last(data: Path):
    assert shots(Gallery(data).find(ALL, "aesthetic", True)) == ["a0", "a1", "a2", "a3", "a4"]
    assert shots(Gallery(data).find(ALL, "aesthetic", False)) == ["a2", "a1", "a0", "a3", "a4"]


def test_the_extent_leaves_out_what_was_never_measured(data: Path):
    assert Gallery(data).extent() == {"motion": (0.0, 3.0), "aesthetic": (3.0, 5.0)}


def test_stills_are_those_of_the_shot(data: Path):
    assert Gallery(data).stills("a1") == [b"one", b"two"]
    assert Gallery(data).stills("a4") == []


def test_what_only_machines_read_is_not_shown(data: Path):
    assert not {"video_hash", "embedding", "embedder"} & Gallery(data).find(ALL, "clip", False)[2][0].keys()


def test_a_column_that_is_none_is_refused(data: Path):
    with pytest.raises(ValueError, match="no column shot; DROP"):
        Gallery(data).find(ALL, "shot; DROP VIEW gallery", False)
