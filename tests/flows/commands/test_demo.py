"""What `stiv demo` says at its end."""

import os
import shutil
import time
from pathlib import Path

import pytest

from flows import stages
from flows.commands import demo
from flows.commands.demo import judgement_lines
from flows.running import stage_names
from tasks.evaluation import judge

ROOT = Path(__file__).parents[3]


def row(held_out: bool, shape_is_right: bool) -> dict[str, object]:
    right = {"colour": True, "shape": shape_is_right, "direction": False}
    seen = {"colour": "red", "shape": "circle", "direction": None}
    return {"held_out": held_out, "right": right, "seen": seen} | dict.fromkeys(judge.PROPERTIES, True)


def test_what_the_judge_found_is_told_for_each_mode_and_kind_of_combination():
    rows = [row(True, True), row(True, False), row(False, True)]
    found = "moved 100%, one object 100%, same object 100%, colour 100%"
    assert judgement_lines({"modes": {"t2v": judge.by_combinations(rows)}}) == [
        f"judge, t2v, held out, 2 videos: {found}, shape 50%, direction 0%",
        f"judge, t2v, seen, 1 videos: {found}, shape 100%, direction 0%",
    ]


def test_the_last_stages_make_the_one_page_and_the_one_file_of_figures_that_the_demo_tells_of():
    assert stage_names.outputs("report") == ("reports/report.html",)
    assert stage_names.metrics("judge") == ("reports/judge.json",)


def test_a_machine_with_too_few_cores_is_refused_before_anything_is_started(tmp_path, monkeypatch):
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    with stages.Repo.init(no_scm=True):
        pass
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    with pytest.raises(ValueError, match=r"training\.ranks is 2, but this process may use 1 core\(s\): set training"):
        demo.run_all(time.monotonic())
    assert not (tmp_path / ".prefect").exists()
