import json

import pytest

from stiv_model.records import CURVE, INCIDENTS, LEDGER, LEVELS, NOISE_LEVELS, Records, Speed

SPEED = Speed(tokens=10, flops=1000, peak_flops_per_second=1e6)


def write(work, steps, done=0):
    records = Records(work, done, 10, 2, SPEED)
    for step in steps:
        records.samples(step, 2 * step - 2, [f"clip-{step}", "other"])
        records.step(step, 1 / step, 0.5, 1e-3, [float("nan")] * (NOISE_LEVELS - 1) + [2.0])
    records.close()


def first_columns(work, name):
    return [line.split("\t")[0] for line in (work / name).read_text().splitlines()]


@pytest.mark.parametrize("name", [CURVE, LEVELS, LEDGER])
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
    assert (tmp_path / LEVELS).read_text().splitlines()[1] == "1" + "\t" * NOISE_LEVELS + "2"


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
    before = float((tmp_path / CURVE).read_text().splitlines()[-1].split("\t")[-1])
    write(tmp_path, [3], done=2)
    assert float((tmp_path / CURVE).read_text().splitlines()[-1].split("\t")[-1]) > before
