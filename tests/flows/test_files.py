import json
from pathlib import Path

import pytest

from flows.__main__ import main
from tasks import corpus


def lines(capfd) -> list[dict]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_probe_says_of_each_file_what_it_is(capfd, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    main(["probe", str(corpus.packaged_file("bikes")), str(text), str(tmp_path / "gone.mp4")])
    real, playlist, gone = lines(capfd)
    assert Path(real["file"]).name == "bikes.mp4"
    assert (real["status"], real["codec"], real["width"], real["height"]) == ("ok", "h264", 640, 272)
    assert (real["fps"], real["seconds"], real["frames"]) == (25.0, 10.0, 250)
    assert (playlist["status"], playlist["reason"]) == ("rejected", "not_a_video")
    assert (gone["status"], gone["reason"]) == ("failed", "not_found")


def test_shots_gives_a_line_per_shot_in_seconds_and_frames(capfd):
    main(["shots", str(corpus.packaged_file("bikes"))])
    found = lines(capfd)
    assert [line["end_frame"] for line in found] == [30, 76, 137, 187, 242, 250]
    assert [line["start_frame"] for line in found[1:]] == [line["end_frame"] for line in found[:-1]]
    assert [(line["start"], line["end"]) for line in found[:2]] == [(0.0, 1.2), (1.2, 3.04)]
    assert [line["transition"] for line in found] == ["start", *["cut"] * 5]
    assert [line["reason"] for line in found] == [None] * 5 + ["too_short"]
    assert all(line["motion"] > 0 and 0 <= line["brightness"] <= 1 for line in found)


@pytest.mark.parametrize("verb", ["probe", "shots"])
def test_files_none_of_which_can_be_read_end_with_code_1(capfd, tmp_path, verb):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        main([verb, str(tmp_path / "a.mp4")])
    assert ended.value.code == 1
    [line] = lines(capfd)
    assert (line["status"], line["reason"]) == ("rejected", "empty_file")


def test_no_file_at_all_is_an_error_in_one_line():
    with pytest.raises(SystemExit, match=r"^stiv shots: no file is named: give one or more$"):
        main(["shots"])


def test_probe_with_a_source_is_the_stage(capfd):
    with pytest.raises(SystemExit):
        main(["probe", "--source", "data/raw"])
    assert "required: --out, --report" in capfd.readouterr().err
