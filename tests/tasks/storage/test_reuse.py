"""Added videos are processed alone, and the outcome is what a run on all of them makes."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.sandbox.pool import Sandbox
from tasks.scores.settings import ScoreSettings
from tasks.scores.stage import Scores
from tasks.storage import atomic, records, reuse, shards, stills
from tasks.storage.stage import Stage, in_turn, run
from tasks.videos.probe import Videos
from tasks.videos.settings import ShotSettings, VideoSettings
from tasks.videos.split import Shots

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
VIDEOS = VideoSettings.model_validate(PARAMS["videos"] | {"max_failed_fraction": 1.0})
SHOTS = ShotSettings.model_validate(PARAMS["shots"] | {"max_failed_fraction": 1.0, "shard_seconds": 1.5})


@pytest.fixture(scope="module")
def sandbox(sandbox_settings):
    with Sandbox(sandbox_settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def score_settings() -> ScoreSettings:
    from flows.params import load_params

    return load_params(Path(__file__).parents[2] / "params.yaml").scores.model_copy(update={"shard_shots": 2})


class Releases:
    """Runs the stages videos, shots and scores over one source again and again, as their flows do."""

    def __init__(self, root: Path, raw: Path, sandbox: Sandbox, score_settings: ScoreSettings) -> None:
        self.root, self.raw, self.sandbox, self.scores = root, raw, sandbox, score_settings

    def run(self, name: str, kept: Path) -> dict[str, list[str]]:
        """Return which files, videos and shots had to be worked on."""
        out, raw, opened = self.root / name, str(self.raw), lambda _: nullcontext(self)
        out.mkdir()
        self.settings, self.opened = self.sandbox.settings, dict[str, set[str]](probe=set(), split=set())
        self.worked_on: dict[str, list[str]] = {}
        self._run(Videos(raw, VIDEOS, self.sandbox.settings, opened), out, kept)
        self._run(Shots(raw, out / "videos", SHOTS, self.sandbox.settings, opened), out, kept)
        self._run(Scores(out / "shots", self.scores), out, kept)
        return self.worked_on | {"shots": sorted(self.opened["split"])}

    def map(self, task: str, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Note which files are opened, in the sandbox that does it."""
        self.opened[task].update(Path(one["path"]).name for one in asked)
        return self.sandbox.map(task, asked)

    def _run(self, declared: Stage, out: Path, kept: Path) -> None:
        def run_shards(declared: Stage, work_on: Callable[[shards.Shard], None], parts: list[shards.Shard]) -> None:
            self.worked_on[declared.name] = sorted({row["uri"] for part in parts for row in part.read()})
            in_turn(declared, work_on, parts)

        run(declared, out / declared.name, out / "report.json", "code", run_shards, kept)


@pytest.fixture
def releases(tmp_path, write_video, moving_frames, sandbox, score_settings) -> Releases:
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in (1, 3, 5, 7, 9):
        write_video(raw / f"{number}.mp4", moving_frames(24, x_step=1, background=60 + 10 * number))
    return Releases(tmp_path, raw, sandbox, score_settings)


def tables(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in folder.glob("part-*")}


def links(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return what DVC's cache would have through its links: inode, time of change and bytes of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_added_videos_are_processed_alone_and_the_tables_are_those_of_a_run_on_all(
    releases, tmp_path, write_video, moving_frames
):
    everything = ["1.mp4", "3.mp4", "5.mp4", "7.mp4", "9.mp4"]
    assert releases.run("first", tmp_path / "kept") == dict.fromkeys(("videos", "shots", "scores"), everything)
    for number in (0, 4):
        write_video(releases.raw / f"{number}.mp4", moving_frames(24, x_step=2, background=150 + number))
    (releases.raw / "3.txt").write_text("a caption that was not there before")
    assert releases.run("second", tmp_path / "kept") == {
        "videos": ["0.mp4", "3.mp4", "4.mp4"],  # of 3.mp4 the text is new
        "shots": ["0.mp4", "4.mp4"],
        "scores": ["0.mp4", "4.mp4"],
    }
    first, second = (inodes(tmp_path / name / "shots" / stills.FOLDER) for name in ("first", "second"))
    assert 0 < len(first.intersection(second)) < len(first)  # parts without an added or changed video are linked
    releases.run("at once", tmp_path / "nothing kept")
    assert tables(tmp_path / "second") == tables(tmp_path / "at once")
    before = links(tmp_path / "second")
    assert releases.run("third", tmp_path / "kept") == {"videos": [], "shots": [], "scores": []}
    assert links(tmp_path / "second") == before
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


def torn(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()  # it is a link: the table of the stage itself stays as it is
    file.write_bytes(content[: len(content) // 2])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [torn, flipped, Path.unlink])
@pytest.mark.parametrize("victim", ["videos.parquet", reuse.HASHES])
def test_what_was_kept_and_went_bad_costs_the_reuse_and_not_the_stage(tmp_path, caplog, damage, victim):
    table = tmp_path / "videos.parquet"
    table.write_bytes(bytes(range(256)))
    kept = reuse.folder(tmp_path / "earlier", "videos", {"key": 1})
    reuse.save_reusable([table], kept)
    assert reuse.folder(tmp_path / "earlier", "videos", {"key": 1}).exists()
    assert not caplog.records
    damage(kept / victim)
    assert reuse.folder(tmp_path / "earlier", "videos", {"key": 1}) == kept
    assert not kept.exists()
    assert "nothing is reused" in caplog.text
    assert table.read_bytes() == bytes(range(256))


def flipped_in_place(file: Path) -> None:
    """Change a byte in all places of a file, with size and time of change restored."""
    before = file.stat()
    with file.open("r+b") as opened:
        first = opened.read(1)[0]
        opened.seek(0)
        opened.write(bytes([first ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_kept_is_hashed_once_and_a_flip_with_its_time_restored_is_found(tmp_path, monkeypatch):
    (tmp_path / "table").write_bytes(bytes(1000))
    kept = reuse.folder(tmp_path / "earlier", "videos", {"key": 1})
    reuse.save_reusable([tmp_path / "table"], kept)
    hashed = count_hashing(monkeypatch)
    time.sleep(0.15)
    for _ in range(3):
        assert reuse.folder(tmp_path / "earlier", "videos", {"key": 1}).exists()
    assert hashed == [kept / "table"]
    flipped_in_place(kept / "table")
    assert not reuse.folder(tmp_path / "earlier", "videos", {"key": 1}).exists()


def count_hashing(monkeypatch) -> list[Path]:
    """Return a list that gets every file whose bytes are read to know its hash."""
    hashed: list[Path] = []
    plain = records.KnownHashes._hash
    monkeypatch.setattr(records.KnownHashes, "_hash", lambda self, file: hashed.append(file) or plain(self, file))
    return hashed


def test_a_file_that_is_reused_as_it_was_keeps_its_hash_and_one_that_went_bad_meanwhile_is_found(tmp_path):
    (tmp_path / "part").write_bytes(bytes(1000))
    kept = reuse.folder(tmp_path / "earlier", "latents", {"key": 1})
    reuse.save_reusable([tmp_path / "part"], kept)
    noted = (kept / reuse.HASHES).read_text()
    (tmp_path / "product").mkdir()
    atomic.link(kept / "part", tmp_path / "product" / "part")
    flipped_in_place(tmp_path / "part")
    reuse.save_reusable([tmp_path / "product" / "part"], kept)
    assert (kept / reuse.HASHES).read_text() == noted
    assert not reuse.folder(tmp_path / "earlier", "latents", {"key": 1}).exists()
