"""Added videos are processed alone, and the outcome is what a run on all of them makes."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.sandbox.pool import Sandbox
from tasks.scores import stage as scores
from tasks.scores.settings import ScoreSettings
from tasks.storage import reuse, shards
from tasks.storage import tables as manifest
from tasks.videos import probe, sources, split
from tasks.videos.settings import ShotSettings, VideoSettings

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
VIDEOS = VideoSettings.model_validate(PARAMS["videos"] | {"max_failed_fraction": 1.0})
SHOTS = ShotSettings.model_validate(PARAMS["shots"] | {"max_failed_fraction": 1.0})


@pytest.fixture(scope="module")
def sandbox(sandbox_settings):
    with Sandbox(sandbox_settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def score_settings() -> ScoreSettings:
    from flows.params import load_params

    return load_params(Path(__file__).parents[2] / "params.yaml").scores


class Releases:
    """Runs the stages videos, shots and scores over one source again and again, as their flows do."""

    def __init__(self, root: Path, raw: Path, sandbox: Sandbox, score_settings: ScoreSettings) -> None:
        self.root, self.raw, self.sandbox, self.scores = root, raw, sandbox, score_settings

    def run(self, name: str, kept: Path) -> dict[str, list[str]]:
        """Return which files, videos and shots had to be worked on."""
        out = self.root / name
        out.mkdir()
        self.worked_on: dict[str, list[str]] = {}
        self._videos(out, kept / "videos" / "key")
        self._shots(out, kept / "shots" / "key")
        self._scores(out, kept / "scores" / "key")
        return self.worked_on

    def _videos(self, out: Path, kept: Path) -> None:
        items = sources.listing(str(self.raw))
        work = self._work(out, "videos")
        taken = probe.load_reusable(kept, work, items, VIDEOS)
        parts = shards.cut(work, self._rest("videos", items, taken, lambda item: item.uri), 2)
        for part in parts:
            probe.probe_shard.fn(part, str(self.raw), VIDEOS, self.sandbox, self.root)
        probe.join_videos(work, self._all(taken, parts), VIDEOS, out / "videos", out / "report.json")
        probe.remember(items, out / "videos", kept)

    def _shots(self, out: Path, kept: Path) -> None:
        rows = manifest.ok(manifest.read_rows(out / "videos" / "videos.parquet", manifest.VIDEOS))
        given = sorted(rows, key=lambda row: row["video"])
        work = self._work(out, "shots")
        taken = split.load_reusable(kept, work, given)
        rest = self._rest("shots", given, taken, lambda row: row["uri"])
        parts = shards.cut(work, rest, 1.5, weight=lambda row: row["seconds"])
        for part in parts:
            split.split_shard.fn(part, str(self.raw), SHOTS, self.sandbox, self.root)
        split.join_shots(work, self._all(taken, parts), SHOTS, out / "shots", out / "report.json")
        names = (manifest.SPLIT_TABLE, manifest.SHOT_TABLE, manifest.STILL_TABLE)
        reuse.save_reusable([out / "shots" / name for name in names], kept)

    def _scores(self, out: Path, kept: Path) -> None:
        stills = out / "shots" / manifest.STILL_TABLE
        given = scores.usable_shots(out / "shots" / manifest.SHOT_TABLE)
        work = self._work(out, "scores")
        taken = scores.load_reusable(kept, work, given, stills)
        parts = shards.cut(work, self._rest("scores", given, taken, lambda one: one[1]["uri"]), 2)
        for part in parts:
            scores.score_shard.fn(part, stills, self.scores)
        scores.join_scores(work, self._all(taken, parts), self.scores, out / "scores", out / "report.json")
        reuse.save_reusable([out / "scores" / manifest.SCORE_TABLE, stills], kept)

    def _work(self, out: Path, stage: str) -> Path:
        work = out / f"{stage}.partial"
        work.mkdir()
        return work

    def _rest(self, stage: str, given: list[Any], taken: shards.Shard, name: Any) -> list[Any]:
        left = shards.rest(given, taken)
        self.worked_on[stage] = sorted({name(thing) for thing in left})
        return left

    def _all(self, taken: shards.Shard, parts: list[shards.Shard]) -> list[shards.Shard]:
        return [*([taken] if taken.given else []), *parts]


@pytest.fixture
def releases(tmp_path, write_video, moving_frames, sandbox, score_settings) -> Releases:
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in (1, 3, 5):
        write_video(raw / f"{number}.mp4", moving_frames(24, x_step=1, background=60 + 10 * number))
    return Releases(tmp_path, raw, sandbox, score_settings)


def tables(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def test_added_videos_are_processed_alone_and_the_tables_are_those_of_a_run_on_all(
    releases, tmp_path, write_video, moving_frames
):
    everything = ["1.mp4", "3.mp4", "5.mp4"]
    assert releases.run("first", tmp_path / "kept") == dict.fromkeys(("videos", "shots", "scores"), everything)
    for number in (0, 4):
        write_video(releases.raw / f"{number}.mp4", moving_frames(24, x_step=2, background=150 + number))
    (releases.raw / "3.txt").write_text("a caption that was not there before")
    assert releases.run("second", tmp_path / "kept") == {
        "videos": ["0.mp4", "3.mp4", "4.mp4"],  # of 3.mp4 the text is new
        "shots": ["0.mp4", "4.mp4"],
        "scores": ["0.mp4", "4.mp4"],
    }
    releases.run("at once", tmp_path / "nothing kept")
    assert tables(tmp_path / "second") == tables(tmp_path / "at once")
    assert releases.run("third", tmp_path / "kept") == {"videos": [], "shots": [], "scores": []}
    assert tables(tmp_path / "third") == tables(tmp_path / "second")


def test_removed_videos_are_gone_and_their_copies_take_their_place(releases, tmp_path):
    shutil.copy(releases.raw / "1.mp4", releases.raw / "1-again.mp4")
    releases.run("first", tmp_path / "kept")
    (releases.raw / "1-again.mp4").unlink()
    (releases.raw / "5.mp4").unlink()
    assert releases.run("second", tmp_path / "kept") == {"videos": [], "shots": [], "scores": []}
    releases.run("at once", tmp_path / "nothing kept")
    assert tables(tmp_path / "second") == tables(tmp_path / "at once")


def test_what_failed_is_tried_again(releases, tmp_path):
    (releases.raw / "0.mp4").write_bytes((releases.raw / "1.mp4").read_bytes()[:900])
    releases.run("first", tmp_path / "kept")
    assert releases.run("second", tmp_path / "kept")["videos"] == ["0.mp4"]


def test_only_the_newest_of_what_a_stage_made_is_kept(tmp_path):
    (tmp_path / "table").write_text("rows")
    for made_with in ({"x": 1}, {"x": 2}):
        folder = reuse.folder(tmp_path / "kept", "shots", made_with)
        assert reuse.fingerprint(folder) is None
        reuse.save_reusable([tmp_path / "table"], folder)
        assert [path.name for path in (tmp_path / "kept" / "shots").iterdir()] == [folder.name]
    assert reuse.fingerprint(folder) is not None
    assert (folder / "table").read_text() == "rows"
