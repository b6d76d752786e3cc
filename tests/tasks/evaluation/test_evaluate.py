"""A card is the same whoever was killed, every video has one row, and what cannot be compared is refused."""

import json
import multiprocessing
import random
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from stiv_model.encoders.video_file import write_video
from tasks.demo import shapes
from tasks.evaluation import clip_folder, measure, registry, rows, sealing, suites, values, video_suite
from tasks.evaluation.evaluate import Evaluation
from tasks.sandbox.settings import SandboxSettings
from tasks.storage import atomic
from tests.made_card import SETTINGS, evaluate, list_samples, write_sample

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    made = [write_sample(folder, f"t2v-{number}") for number in range(6)]
    made += [write_sample(folder, f"ti2v-{number}", "ti2v", held_out=False) for number in range(2)]
    (folder / "t2v-5.npy").write_bytes(b"broken")
    list_samples(folder, made)
    return folder


@pytest.fixture(scope="module")
def card(samples, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    evaluate(suites.shapes(samples), folder / "out", folder / "card.json")
    return folder / "card.json"


def test_every_video_is_accounted_for_and_the_broken_one_is_named(card, samples):
    found = sealing.read(card)
    assert (found.account.given, found.account.ok, found.account.failed) == (8, 7, 1)
    assert [(one.id, one.reason) for one in found.not_measured] == [("t2v-5", "unreadable")]
    assert found.of("colour", "t2v held_out").n == 5 and found.of("colour", "ti2v seen").n == 2
    table = values.read(found, card)
    assert [row["id"] for row in table] == [
        row["id"] for row in json.loads((samples / "samples.json").read_text())["samples"]
    ]
    assert "t2v-5" in (card.parent / "out/card.html").read_text()


def test_an_equal_evaluation_has_the_same_bytes_wherever_it_is_made(card, samples, tmp_path):
    evaluate(suites.shapes(samples), tmp_path / "out", tmp_path / "card.json")
    for name in ("card.json", "out/card.html", f"out/{values.FILE}"):
        assert (tmp_path / name).read_bytes() == (card.parent / name).read_bytes()


def test_without_the_extra_its_figures_say_so_and_all_others_are_there(card, samples, tmp_path, monkeypatch):
    monkeypatch.setitem(registry.EXTRAS, "eval", ("no_such_package",))
    measure.is_installed.cache_clear()
    try:
        found = evaluate(suites.shapes(samples), tmp_path / "out", tmp_path / "card.json")
    finally:
        measure.is_installed.cache_clear()
    absent = {one.name for one in found.dimensions if one.status == "not_installed"}
    assert {"fvd", "kvd"} <= absent <= {one.name for one in registry.figures() if one.needs == "eval"}
    assert found.of("fvd", "t2v held_out").reason == "pip install -e '.[eval]'"
    assert found.of("colour", "t2v held_out") == sealing.read(card).of("colour", "t2v held_out")
    assert "not installed" in (tmp_path / "out/card.html").read_text()


def test_shards_are_joined_to_the_same_card_and_measure_nothing_twice(card, samples, tmp_path, caplog):
    out, path = tmp_path / "out", tmp_path / "card.json"
    for shard in ("1/3", "3/3"):
        assert evaluate(suites.shapes(samples), out, path, shard=shard) is None
    assert not path.exists() and not out.exists()
    evaluate(suites.shapes(samples), out, path)
    assert "3 of 8 rows of the whole are missing and made now: t2v-1, t2v-4, ti2v-1" in caplog.text
    assert path.read_bytes() == card.read_bytes()


def test_a_row_half_written_is_none_and_a_video_that_changed_is_measured_again(samples, tmp_path):
    run = {"of": "a test"}
    log = rows.RowLog(tmp_path / "out", run, None)
    log.add({"id": "a", "sha256": "1"})
    file = next((log.work / "rows").iterdir())
    file.write_text(file.read_text() + '{"id": "b", "sha')
    again = rows.RowLog(tmp_path / "out", run, None)
    again.add({"id": "b", "sha256": "2"})
    assert set(again.read()) == {("a", "1"), ("b", "2")}
    assert set(rows.RowLog(tmp_path / "out", {"of": "another"}, None).read()) == set()


def test_a_shard_of_another_evaluation_deletes_no_work(tmp_path):
    rows.RowLog(tmp_path / "out", {"suite": "a"}, "1/2").add({"id": "a", "sha256": "1"})
    with pytest.raises(ValueError, match=r"--shard 2/2: .* whose suite differs"):
        rows.RowLog(tmp_path / "out", {"suite": "b"}, "2/2")
    with pytest.raises(ValueError, match=r"without --shard: .* whose suite differs"):
        rows.RowLog(tmp_path / "out", {"suite": "b"}, None)
    assert set(rows.RowLog(tmp_path / "out", {"suite": "a"}, None).read()) == {("a", "1")}
    assert atomic.other_run(tmp_path / "out", {"suite": "a", "machine": {"device": "cuda"}}) == "machine"


def test_what_is_shown_of_rows_makes_none_of_them_again(samples):
    def identity(**changes: object) -> dict:
        settings = SETTINGS.model_copy(update=changes)
        return Evaluation(suites.shapes(samples), settings, measure.choose([], settings), "cpu").identity()

    assert identity() == identity(worst=SETTINGS.worst + 1)
    assert identity() != identity(seed=SETTINGS.seed + 1)


def test_rows_of_other_code_or_other_limits_are_measured_again(samples):
    def identity(**decided_by: object) -> dict:
        chosen = measure.choose([], SETTINGS)
        return Evaluation(suites.shapes(samples), SETTINGS, chosen, "cpu", decided_by).identity()

    assert identity(code="a") != identity(code="b")
    assert identity(sandbox={"max_side": 1}) != identity(sandbox={"max_side": 2})


def killed_runs(samples: Path, folder: Path, kills: int) -> tuple[bytes, set[int]]:
    """Kill an evaluation at random points, then let it end.

    Returns:
        the card, and how many rows there were after each kill.
    """
    draw, left = random.Random(0), set()
    for _ in range(kills):
        child = multiprocessing.get_context("fork").Process(target=evaluate_alone, args=(samples, folder))
        child.start()
        time.sleep(draw.uniform(0, 1.2))
        child.kill()
        child.join()
        left.add(sum(log.read_text().count("\n") for log in folder.glob("out.partial/rows/*")))
    evaluate(suites.shapes(samples), folder / "out", folder / "card.json")
    assert not list(folder.glob("*.partial"))
    return (folder / "card.json").read_bytes(), left


def evaluate_alone(samples: Path, folder: Path) -> None:
    cv2.setNumThreads(0)  # its threads do not survive a fork
    evaluate(suites.shapes(samples), folder / "out", folder / "card.json")


def test_killed_it_gives_the_same_card(card, samples, tmp_path):
    assert killed_runs(samples, tmp_path, 1)[0] == card.read_bytes()


@pytest.mark.long
def test_killed_twenty_times_it_gives_the_same_card(card, samples, tmp_path):
    found, left = killed_runs(samples, tmp_path, 20)
    assert found == card.read_bytes() and len(left) > 1


# ------------------------------------------------------------------------------------------------ a folder of videos


@pytest.fixture(scope="module")
def sandbox_settings() -> SandboxSettings:
    from flows.params import load_params

    return load_params(ROOT / "params.yaml").sandbox


def videos_of(folder: Path, settings: SandboxSettings, out: Path):
    with video_suite.opened_videos(folder, settings) as run:
        return evaluate(run, out, out / "card.json")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for number in range(3):
        write_video(folder / f"{number}.mp4", shapes.render(shapes.scene(1, number, True), 64, 8), 8)
    (folder / "broken.mp4").write_bytes((folder / "0.mp4").read_bytes()[:300])
    (folder / "0.txt").write_text("a red circle")
    return folder


def test_files_are_measured_from_their_pixels_and_the_card_says_how_they_were_compressed(
    files, tmp_path, sandbox_settings
):
    found = videos_of(files, sandbox_settings, tmp_path / "out")
    assert (found.account.ok, found.account.failed) == (3, 1) and found.not_measured[0].id == "broken.mp4"
    assert found.videos.model_dump() == {
        "height": 64, "width": 64, "frames": 8, "fps": 8.0, "pixels": "file", "codec": "h264", "crf": 12.0,
        "corpus": None,
    }  # fmt: skip
    first = values.read(found, tmp_path / "out/card.json")[0]
    assert first["id"] == "0.mp4" and first["prompt"] == "a red circle"
    assert "broken.mp4" in (tmp_path / "out/card.html").read_text()


def test_a_folder_without_a_video_or_of_arrays_and_files_is_refused(files, tmp_path, sandbox_settings):
    with pytest.raises(ValueError, match=r"holds no video: it takes \.mp4"):
        videos_of(tmp_path, sandbox_settings, tmp_path / "out")
    (tmp_path / "a.mp4").symlink_to(files / "0.mp4")
    np.save(tmp_path / "b.npy", np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"holds arrays .* and compressed files"):
        videos_of(tmp_path, sandbox_settings, tmp_path / "out")


def test_videos_of_two_sizes_are_refused_with_both(tmp_path, sandbox_settings):
    for name, pixels in (("a", 8), ("b", 16)):
        np.save(tmp_path / f"{name}.npy", np.zeros((4, pixels, pixels, 3), np.uint8))
    with pytest.raises(ValueError, match=r"b\.npy has height 16, and a\.npy 8"):
        videos_of(tmp_path, sandbox_settings, tmp_path / "out")


def test_broken_arrays_are_rows_and_end_nothing(tmp_path, sandbox_settings):
    whole = tmp_path / "whole.npy"
    np.save(whole, np.zeros((4, 8, 8, 3), np.uint8))
    text = whole.read_bytes()
    np.savez(tmp_path / "z.npz", np.zeros(3, np.uint8))
    broken = {
        "empty": b"", "zip": (tmp_path / "z.npz").read_bytes(), "cut": text[:40], "short": text[:-1],
        "huge": text.replace(b"(4, 8, 8, 3)", b"(4, 8" + b"0" * 9 + b", 8, 3)"),
        "more": text.replace(b"(4, 8, 8, 3)", b"(4, 8" + b"0" * 30 + b", 8, 3)"),
        "open": text.replace(b"3), }", b"3,   "), "less": text.replace(b"(4, 8", b"(4,-8"),
        "none": text.replace(b"(4, 8", b"(0, 8"), "types": text.replace(b"'|u1'", b"[('a'"),
    }  # fmt: skip
    (tmp_path / "z.npz").unlink()
    for name, content in broken.items():
        (tmp_path / f"{name}.npy").write_bytes(content)
    found = videos_of(tmp_path, sandbox_settings, tmp_path / "out")
    assert found.account.ok == 1 and found.account.reasons == {"unreadable": len(broken)}
    with clip_folder.opened(tmp_path, (".mp4",), clip_folder.ClipRule(None, 1, 1, None), sandbox_settings) as folder:
        assert {one.id: one.reason for one in folder if one.reason} == {f"{name}.npy": "unreadable" for name in broken}


def test_a_video_that_was_replaced_says_nothing_of_the_kind_of_the_others(tmp_path, sandbox_settings):
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    for pixels in (8, 16):
        np.save(folder / "a.npy", np.zeros((4, pixels, pixels, 3), np.uint8))
        with video_suite.opened_videos(folder, sandbox_settings) as run:
            evaluate(run, out, out / "card.json", shard="1/1")
    with video_suite.opened_videos(folder, sandbox_settings) as run:
        assert evaluate(run, out, out / "card.json").videos.height == 16
