"""What `stiv demo` says at its end."""

import os
import shutil
import time
from pathlib import Path

import pytest

from flows import stages
from flows.commands import demo
from flows.commands.demo import card_lines
from flows.running import stage_names
from tasks.evaluation import sealing
from tests.made_card import made_card, share

ROOT = Path(__file__).parents[3]


def test_what_the_judge_found_is_told_for_each_mode_and_kind_of_combination_and_alarms_that_fire(tmp_path):
    all_right = dict.fromkeys(("moved", "one_object", "same_object", "colour", "unseen"))
    groups = {
        f"t2v {kind}": {name: share(n, n) for name in all_right} | {"shape": share(1, n), "direction": share(0, n)}
        for kind, n in (("held_out", 2), ("seen", 1))
    }
    alarm = {"name": "still_video", "group": "t2v seen", "rule": "a rule", "found": "1 of 1 is still"}
    alarms = [alarm | {"state": "fires"}, alarm | {"state": "quiet", "group": "t2v held_out"}]
    sealing.write(made_card(groups, alarms=alarms), tmp_path / "card.json")
    found = "moved 100%, one object 100%, same object 100%, colour 100%"
    assert card_lines(tmp_path / "card.json") == [
        f"judge, t2v, held out, 2 videos: {found}, shape 50%, direction 0%",
        f"judge, t2v, seen, 1 videos: {found}, shape 100%, direction 0%",
        "alarm, t2v seen: still video: 1 of 1 is still",
    ]
    sealing.write(made_card(groups, alarms=[alarms[1]]), tmp_path / "card.json")
    assert card_lines(tmp_path / "card.json")[2:] == ["no alarm fires, of 1"]


def test_the_last_stages_make_the_one_page_and_the_one_file_of_figures_that_the_demo_tells_of():
    assert stage_names.outputs("report") == ("reports/report.html",)
    assert stage_names.metrics("evaluate") == ("reports/card.json", "reports/long.json")


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
