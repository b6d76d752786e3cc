import json
import threading
from pathlib import Path

import numpy as np
import pytest

from flows.params import load_params
from tasks.decoding.measures import jpeg
from tasks.scores import stage
from tasks.scores.settings import ScoreSettings
from tasks.scores.video_hash import distance, video_hash
from tasks.storage import tables
from tasks.storage.stage import in_turn
from tasks.storage.stage import run as run_stage
from tests.made_stills import write_stills

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def settings() -> ScoreSettings:
    return load_params(ROOT / "tests/params.yaml").scores


def table_of_shots(folder: Path, count: int) -> list[dict]:
    """Write shots.parquet and the stills, in several parts; every third shot is rejected and has no stills."""
    shots = [
        dict.fromkeys(tables.SHOTS.names)
        | {"clip": f"{number << 28:08x}", "video": "v", "width": 128, "height": 72}
        | ({"status": "rejected", "reason": "too_short"} if number % 3 == 2 else {"status": "ok"})
        for number in range(count)
    ]
    kept = [shot for shot in shots if shot["status"] == "ok"]
    tables.write_rows(folder / "shots.parquet", shots, tables.SHOTS)
    write_stills(folder, {shot["clip"]: [jpeg(np.full((72, 128, 3), 20 * n, np.uint8))] for n, shot in enumerate(kept)})
    return kept


def run(shots: Path, out: Path, size: int, settings: ScoreSettings, run_shards=in_turn) -> tables.Account:
    declared = stage.Scores(shots, settings.model_copy(update={"shard_shots": size}))
    (account,) = run_stage(declared, out, out.with_suffix(".json"), "code", run_shards, out.with_suffix(".earlier"))
    return account


def test_every_usable_shot_is_scored_once_whatever_the_shards(tmp_path, settings):
    kept = table_of_shots(tmp_path, 13)
    assert run(tmp_path, tmp_path / "a", 4, settings) == ("shots", 9, 9, 0, 0, {})
    run(tmp_path, tmp_path / "b", 2, settings)
    one, other = (tables.read_rows(tmp_path / name / "scores.parquet", tables.SCORES) for name in "ab")
    assert one == other
    assert [row["clip"] for row in one] == [shot["clip"] for shot in kept]


def test_a_lost_row_stops_the_stage(tmp_path, settings):
    table_of_shots(tmp_path, 6)

    def lose_a_row(declared, work_on, parts):
        in_turn(declared, work_on, parts)
        parts[0].write(tables.read_rows(parts[0].path, tables.SCORES)[1:], tables.SCORES)

    with pytest.raises(AssertionError, match=r"\bshots\b.*\b1 without a row"):
        run(tmp_path, tmp_path / "out", 2, settings, lose_a_row)
    assert not (tmp_path / "out").exists()


def test_the_report_says_who_made_each_score(tmp_path, settings):
    table_of_shots(tmp_path, 3)
    run(tmp_path, tmp_path / "a", 4, settings)
    made_by = json.loads((tmp_path / "a.json").read_text())["made_by"]
    assert made_by == {"aesthetic": "estimator", "text_area": "strokes", "nsfw": None, "embedding": None}


def test_a_row_holds_every_score_of_the_stills(real_frames, settings):
    stills = [jpeg(frame) for frame in real_frames]
    shot = dict.fromkeys(tables.SHOTS.names) | {"clip": "s", "width": 640, "height": 272}
    row = stage.scorer(settings).score(shot, stills)
    assert set(row) == set(tables.SCORES.names)
    assert row["orientation"] == "landscape"
    assert row["nsfw"] is None
    assert row["embedding"] is row["embedder"] is None
    assert 0 < row["quality"] < 1
    assert 0 < row["aesthetic"] < 10
    assert distance(row["video_hash"], video_hash(real_frames)) < 16


def test_a_still_that_does_not_decode_stops_the_stage(settings):
    with pytest.raises(AssertionError, match="s: 0 of 1 decode"):
        stage.scorer(settings).score({"clip": "s", "width": 64, "height": 64}, [b"no jpeg"])


def test_threads_that_share_the_detector_find_what_one_finds(real_frames, settings):
    shared = stage.scorer(settings.model_copy(update={"text_detector": "rapidocr"}))
    stills = [[jpeg(frame)] for frame in real_frames]
    shot = {"clip": "s", "width": 640, "height": 272}
    alone = [shared.score(shot, still) for still in stills]
    found: list[list[dict]] = [[] for _ in range(3)]
    threads = [
        threading.Thread(target=lambda rows=rows: rows.extend(shared.score(shot, still) for still in stills))
        for rows in found
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 3


@pytest.mark.parametrize(("count", "chosen"), [(1, [2]), (2, [1, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])])
def test_stills_are_taken_at_even_distances_from_the_ends(count, chosen):
    assert [int(picture[0]) for picture in stage.spread([np.full(1, at) for at in range(4)], count)] == chosen
