"""`stiv fvd`: two folders, or one; figures with their names, protocol and account."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flows.__main__ import main
from stiv_model.encoders.video_file import write_video

pytestmark = pytest.mark.usefixtures("needs_eval")
ROOT = Path(__file__).parents[3]


class Means(nn.Module):
    """Features of a clip in no time: its channels' means and spreads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean(dim=(2, 3, 4)), x.std(dim=(2, 3, 4)), x[:, :, 0].mean(dim=(2, 3))], dim=1)


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    path = tmp_path_factory.mktemp("extractor") / "means.pt"
    torch.jit.script(Means()).save(str(path))
    return path


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A workspace with 14 real and 6 made arrays of 12 frames."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name, count, level in (("real", 14, 90), ("made", 6, 130)):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(count):
            video = random.normal(level + 5 * (number % 3), 40, (12, 16, 16, 3))
            np.save(folder / f"{number:02d}.npy", np.clip(video, 0, 255).astype(np.uint8))
    return tmp_path


def said(capsys, *words: object) -> dict:
    main(["fvd", *map(str, words), "--json"])
    return json.loads(capsys.readouterr().out)


def refused(*words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["fvd", *map(str, words)])
    assert "\n" not in str(stop.value.code)
    return str(stop.value.code)


def test_other_features_never_make_an_fvd_and_the_figure_says_of_what_it_is(folders, extractor, capsys):
    found = said(capsys, "real", "made", "--extractor", extractor)
    assert (found["name"], found["kernel_name"]) == ("Frechet distance (means.pt)", "kernel distance (means.pt)")
    assert (found["made"]["n_real"], found["made"]["n_made"]) == (8, 6)
    assert (found["floor"]["n_real"], found["floor"]["n_made"]) == (8, 6)
    assert found["floor"]["distance"] < found["made"]["interval"][0]
    assert (found["protocol"]["frames"], found["protocol"]["pixels"], found["protocol"]["crf"]) == (12, "arrays", None)
    assert found["videos"]["made"]["ok"] == 6
    main(["fvd", "real", "made", "--extractor", str(extractor)])
    text = capsys.readouterr().out
    assert "FVD" not in text and "KVD" not in text and "FID" not in text


def test_one_folder_gives_its_floor_and_a_file_that_stands_for_it(folders, extractor, capsys):
    alone = said(capsys, "real", "--extractor", extractor, "--save", "real.safetensors")
    assert (alone["floor"]["n_real"], alone["floor"]["n_made"]) == (7, 7)
    assert "made" not in alone
    by_file = said(capsys, "real.safetensors", "made", "--extractor", extractor)
    by_folder = said(capsys, "real", "made", "--extractor", extractor)
    assert by_file["made"]["distance"] == pytest.approx(by_folder["made"]["distance"], rel=1e-4)  # in float32
    assert "frames 12 and 10" in refused("real.safetensors", "made", "--extractor", extractor, "--frames", 10)


def test_a_curve_is_a_figure_and_its_numbers(folders, extractor, capsys):
    for number in range(6, 14):
        np.save(f"made/{number:02d}.npy", np.load(f"real/{number:02d}.npy") // 2)
    found = said(capsys, "real", "made", "--extractor", extractor, "--curve", "curve.svg")
    assert Path("curve.svg").read_text().rstrip().endswith("</svg>")
    assert json.loads(Path("curve.json").read_text()) == found["curve"]
    assert found["curve"]["made"]["points"][-1]["n"] == 14


def test_clips_of_a_video_stand_one_after_the_other(folders, extractor, capsys):
    found = said(capsys, "real", "--extractor", extractor, "--frames", 3, "--stride", 2, "--clips", 9)
    assert found["videos"]["real"]["clips"] == 14 * 2
    assert (found["protocol"]["frames"], found["protocol"]["stride"]) == (3, 2)


def test_what_cannot_be_measured_is_named_and_counted(folders, extractor, capsys):
    Path("made/00.npy").write_bytes(b"nothing")
    np.save("made/01.npy", np.zeros((2, 16, 16, 3), np.uint8))
    np.save("made/02.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(SystemExit) as stop:
        said(capsys, "real", "made", "--extractor", extractor, "--frames", 4)
    assert stop.value.code == 1
    found = json.loads(capsys.readouterr().out)
    assert [(one["id"], one["reason"]) for one in found["not_measured"]] == [
        ("00.npy", "unreadable"),
        ("01.npy", "too_few_frames"),
        ("02.npy", "unreadable"),
    ]
    assert found["videos"]["made"]["failed"] == 3
    assert found["made"]["n_made"] == 3


def test_clips_of_several_kinds_are_refused_by_name(folders, extractor):
    np.save("made/03.npy", np.zeros((12, 16, 8, 3), np.uint8))
    assert "03.npy has width 8, and 00.npy 16" in refused("real", "made", "--extractor", extractor)
    np.save("made/03.npy", np.zeros((9, 16, 16, 3), np.uint8))
    assert "03.npy has frames 9, and 00.npy 12" in refused("real", "made", "--extractor", extractor)
    write_video(Path("made/a.mp4"), np.zeros((12, 16, 16, 3), np.uint8), 10)
    assert "6 arrays and 1 compressed files" in refused("real", "made", "--extractor", extractor)


def test_i3d_is_never_asked_about_fewer_than_nine_frames(folders):
    assert "--frames is 8: I3D needs 9" in refused("real", "made", "--frames", 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "0 folders"),
        (("real", "made", "made"), "3 folders"),
        (("real", "none"), "none is no folder"),
        (("empty",), "empty holds no video"),
        (("real", "--clips", "2"), "state --frames"),
        (("real", "--curve", "curve.svg"), "one folder is named: name the other"),
        (("real", "--height", "64"), "state both"),
        (("real", "--height", "64", "--width", "64"), "taken as they are"),
        (("real", "--extractor", "params.yaml"), "an extractor is"),
        (("real", "--extractor", "no.pt"), "not there"),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_one_line(folders, extractor, words, message):
    Path("empty").mkdir()
    rest = [] if "--extractor" in words else ["--extractor", extractor]
    assert message in refused(*words, *rest)


@pytest.mark.long
def test_files_are_opened_in_the_sandbox_and_a_broken_one_costs_its_row(folders, extractor, capsys):
    for side in ("real", "made"):
        for path in sorted(Path(side).iterdir()):
            write_video(path.with_suffix(".mp4"), np.load(path), 10)
            path.unlink()
    whole = Path("made/00.mp4").read_bytes()
    Path("made/00.mp4").write_bytes(whole[:300])
    with pytest.raises(SystemExit):
        said(capsys, "real", "made", "--extractor", extractor, "--frames", 10)
    found = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in found["not_measured"]] == ["00.mp4"]
    protocol = found["protocol"]
    assert [protocol[name] for name in ("pixels", "codec", "crf", "fps", "frames")] == ["file", "h264", 12, 10, 10]


@pytest.mark.long
def test_two_processes_at_once_and_one_alone_find_the_same(folders, extractor, capsys):
    command = [sys.executable, "-m", "flows", "fvd", "real", "made", "--extractor", str(extractor), "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) for _ in range(2)]
    found = [json.loads(process.communicate()[0]) for process in both]
    shutil.rmtree(".cache")
    assert found == [said(capsys, "real", "made", "--extractor", extractor)] * 2
