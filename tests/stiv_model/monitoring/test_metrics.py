import json
import logging
import os
from pathlib import Path

import pytest

from stiv_model.monitoring.metrics import Records, Speed
from stiv_model.training.run_files import INCIDENTS, LEDGER, LOSSES, NOISE_LEVEL_LOSSES, NOISE_LEVELS

SPEED = Speed(tokens=10, flops=1000, peak_flops_per_second=1e6)


def write(work, steps, done=0):
    records = Records(work, done, 10, 2, SPEED)
    for step in steps:
        records.samples(step, 2 * step - 2, [f"clip-{step}", "other"])
        records.step(step, 1 / step, 0.5, 1e-3, [float("nan")] * (NOISE_LEVELS - 1) + [2.0], 3_000_000_000)
    records.close()


def first_columns(work, name):
    return [line.split("\t")[0] for line in (work / name).read_text().splitlines()]


@pytest.mark.parametrize("name", [LOSSES, NOISE_LEVEL_LOSSES, LEDGER])
def test_a_run_that_goes_on_has_one_line_per_step(tmp_path, name):
    write(tmp_path, range(1, 7))
    write(tmp_path, range(5, 9), done=4)  # killed after step 6, its checkpoint is of step 4
    assert first_columns(tmp_path, name) == ["step", *map(str, range(1, 9))]


def test_the_ledger_says_which_samples_a_step_saw(tmp_path):
    write(tmp_path, range(1, 4))
    rows = [line.split("\t") for line in (tmp_path / LEDGER).read_text().splitlines()[1:]]
    assert [row[1:3] for row in rows] == [["0", "1"], ["2", "3"], ["4", "5"]]
    assert len({row[3] for row in rows}) == 3


def test_a_noise_level_that_no_sample_had_stays_empty(tmp_path):
    write(tmp_path, [1])
    assert (tmp_path / NOISE_LEVEL_LOSSES).read_text().splitlines()[1] == "1" + "\t" * NOISE_LEVELS + "2"


def test_incidents_outlive_a_return_to_a_checkpoint_and_are_told_once(tmp_path):
    for _ in range(2):
        records = Records(tmp_path, 0, 10, 2, SPEED)
        records.incident(7, why="loss is nan", clips=["a", "b"])
        records.close()
    assert [json.loads(line) for line in (tmp_path / INCIDENTS).read_text().splitlines()] == [
        {"step": 7, "why": "loss is nan", "clips": ["a", "b"]}
    ]


def test_seconds_add_up_over_attempts(tmp_path):
    write(tmp_path, [1, 2])
    before = float((tmp_path / LOSSES).read_text().splitlines()[-1].split("\t")[-1])
    write(tmp_path, [3], done=2)
    assert float((tmp_path / LOSSES).read_text().splitlines()[-1].split("\t")[-1]) > before


def test_the_line_of_progress_says_how_far_how_fast_and_how_long(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write(tmp_path, [10])  # the last of ten
    line = caplog.messages[-1]
    assert line.startswith("[####################] step 10 of 10  loss 0.1000  gradient norm 0.50  ")
    for part in ("samples/s", "tokens/s", "MFU", "3.0 GB", "0 s left"):
        assert part in line


def test_what_is_worth_a_curve_says_samples_tokens_and_flops_alike(tmp_path):
    records = Records(tmp_path, 0, 10, 2, SPEED)
    figures = records.step(1, 1.0, 0.5, 1e-3, [1.0] * NOISE_LEVELS, 1)
    samples = figures["speed/samples per second"]
    assert figures["speed/tokens per second"] == pytest.approx(10 * samples)
    assert figures["speed/MFU"] == pytest.approx(1000 * samples / 1e6)
    row = dict(zip(*(line.split("\t") for line in (tmp_path / LOSSES).read_text().splitlines()), strict=True))
    assert float(row["mfu"]) == pytest.approx(figures["speed/MFU"])


def last_row_torn(content: bytes) -> bytes:
    return content[:-8]


def zeros_at_the_end(content: bytes) -> bytes:
    return content[:-8] + bytes(8)


def three_rows_missing(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:-3])


def a_row_in_the_middle_torn(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join([*lines[:3], lines[3][:1] + b"\n", *lines[4:]])


def gone(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("name", [LOSSES, NOISE_LEVEL_LOSSES, LEDGER])
@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (last_row_torn, [6]),
        (zeros_at_the_end, [6]),
        (three_rows_missing, [4, 5, 6]),
        (a_row_in_the_middle_torn, [3]),
        (gone, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_rows_that_a_power_loss_took_are_told_and_the_run_goes_on(tmp_path, name, damage, lost):
    write(tmp_path, range(1, 7))
    whole = (tmp_path / name).read_text().splitlines()
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    write(tmp_path, [7, 8], done=6)
    rows = (tmp_path / name).read_text().splitlines()
    assert [row.split("\t")[0] for row in rows] == ["step", *map(str, range(1, 9))]
    assert [step for step in range(1, 7) if rows[step] != whole[step]] == lost
    assert len({row.count("\t") for row in rows}) == 1
    told = [json.loads(line) for line in (tmp_path / INCIDENTS).read_text().splitlines()]
    assert told == [{"step": 6, "lost_rows": len(lost), "of": name, "first": lost[0], "last": lost[-1]}]


def test_the_ledger_still_says_which_positions_a_lost_row_was_of(tmp_path):
    write(tmp_path, range(1, 5))
    (tmp_path / LEDGER).write_text("")
    write(tmp_path, [], done=4)
    rows = [line.split("\t") for line in (tmp_path / LEDGER).read_text().splitlines()[1:]]
    assert [row[1:] for row in rows] == [[str(2 * step), str(2 * step + 1), "lost"] for step in range(4)]


def test_a_torn_row_of_a_later_step_than_the_checkpoint_is_none_of_its_business(tmp_path):
    write(tmp_path, range(1, 7))
    (tmp_path / LOSSES).write_bytes(last_row_torn((tmp_path / LOSSES).read_bytes()))
    write(tmp_path, [], done=5)
    assert first_columns(tmp_path, LOSSES) == ["step", *map(str, range(1, 6))]
    assert (tmp_path / INCIDENTS).read_text() == ""


def test_an_incident_that_was_torn_is_left_out(tmp_path, caplog):
    (tmp_path / INCIDENTS).write_text('{"step": 3, "why": "loss is nan"}\n{"step": 4, "wh')
    records = Records(tmp_path, 0, 10, 2, SPEED)
    records.incident(5, why="loss is inf")
    records.close()
    steps = [json.loads(line)["step"] for line in (tmp_path / INCIDENTS).read_text().splitlines()]
    assert steps == [3, 5]
    assert "1 of 2 lines are torn" in caplog.text


def test_a_checkpoint_finds_its_rows_on_the_disk(tmp_path, monkeypatch):
    records = Records(tmp_path, 0, 10, 2, SPEED)
    synced, fsync = set(), os.fsync

    def watch(descriptor: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    records.sync()
    assert synced == {str(tmp_path / name) for name in (LOSSES, NOISE_LEVEL_LOSSES, LEDGER, INCIDENTS)} | {
        str(tmp_path)
    }
