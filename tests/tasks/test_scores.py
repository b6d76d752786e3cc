from pathlib import Path

import cv2
import numpy as np
import pytest

from tasks import manifest, scores, shards
from tasks.measures import jpeg


def plain(red: int, green: int, blue: int) -> np.ndarray:
    return np.broadcast_to(np.array([blue, green, red], np.uint8), (72, 128, 3)).copy()


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((220, 20, 20), "red"),
        ((250, 130, 10), "orange"),
        ((240, 230, 30), "yellow"),
        ((30, 180, 40), "green"),
        ((20, 210, 220), "cyan"),
        ((20, 40, 220), "blue"),
        ((110, 20, 190), "purple"),
        ((240, 30, 230), "pink"),
        ((110, 60, 20), "brown"),
        ((5, 5, 5), "black"),
        ((250, 250, 250), "white"),
        ((128, 128, 128), "grey"),
    ],
)
def test_colours_have_their_names(rgb, name):
    assert scores.main_colours([plain(*rgb)]) == [name]


def test_the_colour_that_fills_most_comes_first():
    picture = plain(220, 20, 20)
    picture[:20] = (220, 40, 20)
    assert scores.main_colours([picture]) == ["red", "blue"]


def test_colour_shares_add_up():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert sum(scores.colour_shares(noise).values()) == pytest.approx(1)


def test_lines_of_text_have_area_and_plain_pictures_have_none():
    page = plain(200, 200, 200)
    assert scores.text_area(page) == 0
    page = cv2.resize(page, (256, 144))
    for line in range(3):
        cv2.putText(page, "many words here", (10, 40 + 35 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 2)
    assert 0.1 < scores.text_area(page) < 0.6
    smooth = np.broadcast_to(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], (144, 256, 3)).copy()
    assert scores.text_area(smooth) == 0


def test_a_colourful_sharp_picture_scores_above_a_dark_flat_one():
    colourful = np.random.default_rng(0).integers(0, 255, (72, 128, 3), np.uint8)
    assert 10 >= scores.aesthetic(colourful) > 8
    assert 0 <= scores.aesthetic(plain(5, 5, 5)) < 1


@pytest.mark.parametrize(
    ("width", "height", "name"), [(640, 360, "landscape"), (360, 640, "portrait"), (100, 98, "square")]
)
def test_orientation(width, height, name):
    assert scores.orientation(width, height) == name


def table_of_shots(folder: Path, count: int) -> list[dict]:
    """Write shots.parquet and stills.parquet; every third shot is rejected and has no stills."""
    shots = [
        dict.fromkeys(manifest.SHOTS.names)
        | {"shot": f"shot-{number}", "video": "v", "width": 128, "height": 72}
        | ({"status": "rejected", "reason": "too_short"} if number % 3 == 2 else {"status": "ok"})
        for number in range(count)
    ]
    kept = [shot for shot in shots if shot["status"] == "ok"]
    stills = [{"shot": shot["shot"], "stills": [jpeg(plain(20 * at, 90, 200))]} for at, shot in enumerate(kept)]
    manifest.write_rows(folder / "shots.parquet", shots, manifest.SHOTS)
    parts = []
    for start in range(0, len(stills), 3):
        parts.append(folder / f"part-{start}")
        manifest.write_rows(parts[-1], stills[start : start + 3], manifest.STILLS)
    shards.join(parts, folder / "stills.parquet", manifest.STILLS)
    return kept


def run(shots: Path, work: Path, out: Path, size: int) -> manifest.Account:
    work.mkdir()
    parts = shards.cut(work, scores.usable_shots(shots / "shots.parquet"), size)
    for number, part in enumerate(parts):
        scores.score_shard.fn(part, number * size, shots / "stills.parquet")
    return scores.join_scores(work, parts, out, out.with_suffix(".json"))


def test_every_usable_shot_is_scored_once_whatever_the_shards(tmp_path):
    kept = table_of_shots(tmp_path, 13)
    assert run(tmp_path, tmp_path / "a.partial", tmp_path / "a", 4) == ("shots", 9, 9, 0, 0, {})
    run(tmp_path, tmp_path / "b.partial", tmp_path / "b", 2)
    one, other = (manifest.read_rows(tmp_path / name / "scores.parquet", manifest.SCORES) for name in "ab")
    assert one == other
    assert [row["shot"] for row in one] == [shot["shot"] for shot in kept]


def test_a_lost_row_stops_the_stage(tmp_path):
    table_of_shots(tmp_path, 6)
    work = tmp_path / "out.partial"
    work.mkdir()
    parts = shards.cut(work, scores.usable_shots(tmp_path / "shots.parquet"), 2)
    for number, part in enumerate(parts):
        scores.score_shard.fn(part, number * 2, tmp_path / "stills.parquet")
    parts[0].write(manifest.read_rows(parts[0].path, manifest.SCORES)[1:], manifest.SCORES)
    with pytest.raises(AssertionError, match="does not balance"):
        scores.join_scores(work, parts, tmp_path / "out", tmp_path / "report.json")
    assert not (tmp_path / "out").exists()
