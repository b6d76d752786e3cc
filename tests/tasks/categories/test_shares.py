"""Shares of categories: their intervals take videos for clusters, and a drift is told only where it is one."""

from pathlib import Path

import numpy as np
import pytest

from tasks.categories.shares import Shares, counted, drift, shares, told
from tasks.storage import queries, tables
from tests.fault_server import FaultServer, completion
from tests.made_categories import clip_of, model, run, settings, write_captions

NAMES = ("animals", "people", "other")


def write(path: Path, kinds: list[str | None], per_video: int = 1, model: str = "m") -> Path:
    rows = [
        dict.fromkeys(tables.CATEGORIES.names)
        | {"clip": clip_of(number, number // per_video), "status": "ok", "category": kind, "model": model}
        for number, kind in enumerate(kinds)
    ]
    tables.write_rows(path, rows, tables.CATEGORIES)
    return path


def of(path: Path) -> Shares:
    with queries.connect(path.parent) as connection:
        return shares(connection, path, NAMES)


def drawn(random: np.random.Generator, share: list[float], videos: int) -> Shares:
    """A release of four clips of each video, all of one category."""
    kinds = random.choice(len(NAMES), videos, p=share)
    hits = [4 * (kinds == number) for number in range(len(NAMES))]
    counts = {name: int(own.sum()) for name, own in zip(NAMES, hits, strict=True)}
    return counted(counts, [(own, np.full(videos, 4)) for own in hits], {"m"})


def test_shares_are_counted_over_what_has_a_category(tmp_path):
    found = of(write(tmp_path / "t.parquet", ["animals"] * 30 + ["people"] * 10 + [None] * 5))
    assert (found.clips, found.videos) == (40, 40)
    assert told(found)["animals"] | {"low": 0, "high": 0} == {"clips": 30, "share": 0.75, "low": 0, "high": 0}
    assert told(found)["other"]["clips"] == 0 and told(found)["other"]["high"] < 0.1


def test_clips_of_one_video_tell_no_more_than_the_video(tmp_path):
    kinds = ["animals"] * 100 + ["people"] * 100
    apart, together = of(write(tmp_path / "a.parquet", kinds)), of(write(tmp_path / "b.parquet", kinds, 10))
    width = {
        name: float(found.intervals["animals"].high - found.intervals["animals"].low)
        for name, found in (("apart", apart), ("together", together))
    }
    assert width["together"] > 2.5 * width["apart"]
    assert together.design_effect == pytest.approx(10, rel=0.3) and apart.design_effect < 1.1
    assert float(together.intervals["other"].high) > 0.1  # of twenty videos, not of two hundred clips


def test_the_same_shares_are_rarely_called_changed_and_others_mostly_are():
    random, calls = np.random.default_rng(0), {"same": 0, "other": 0}
    for _ in range(50):
        before = drawn(random, [0.5, 0.3, 0.2], 100)
        for name, share in (("same", [0.5, 0.3, 0.2]), ("other", [0.2, 0.4, 0.4])):
            calls[name] += drift(drawn(random, share, 120), before)["verdict"] == "changed"
    assert calls["same"] <= 6 and calls["other"] >= 45


def test_a_drift_has_its_distance_and_the_change_of_each_category(tmp_path):
    before = of(write(tmp_path / "before.parquet", ["animals"] * 120 + ["people"] * 60 + ["other"] * 20))
    now = of(write(tmp_path / "now.parquet", ["animals"] * 60 + ["people"] * 120 + ["other"] * 20))
    found = drift(now, before)
    assert found["total_variation"] == pytest.approx(0.3) and found["verdict"] == "changed"
    verdicts = {name: one["verdict"] for name, one in found["categories"].items()}
    assert verdicts == {"animals": "fewer", "people": "more", "other": "cannot tell"}
    change = found["categories"]["people"]
    assert change["change"] == pytest.approx(0.3) and 0.19 < change["low"] < 0.3 < change["high"] < 0.41
    assert drift(now, now)["total_variation"] == 0


def test_of_few_videos_or_by_another_model_nothing_is_told(tmp_path):
    before = of(write(tmp_path / "before.parquet", ["animals"] * 100, 10))
    now = of(write(tmp_path / "now.parquet", ["people"] * 100))
    few = drift(now, before)
    assert few["verdict"] == "cannot tell" and "20 videos" in few["why"]
    assert {one["verdict"] for one in few["categories"].values()} == {"cannot tell"}
    other = drift(now, of(write(tmp_path / "other.parquet", ["animals"] * 100, model="n")))
    assert (other["verdict"], "total_variation" in other) == ("cannot tell", False)


def test_a_category_that_is_new_or_gone_is_told_of_as_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "release.parquet", ["people"] * 30 + ["zebras"] * 30, model="tiny-vlm")
    write_captions(tmp_path / "captions", ["A dog runs."] * 60)
    with FaultServer(answer=lambda request: completion(request, '{"category": "animals"}')) as server:
        _, report = run(settings(by=model(server.url), earlier_release="release.parquet"))
    found = report["drift"]
    assert (found["verdict"], found["total_variation"], found["clips"]) == ("changed", 1.0, 60)
    verdicts = {name: one["verdict"] for name, one in found["categories"].items()}
    assert verdicts["animals"] == "more" and verdicts["zebras"] == verdicts["people"] == "fewer"
    assert verdicts["vehicles"] == "cannot tell" and "zebras" not in report["categories"]
