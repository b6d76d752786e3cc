"""Trackers of a user: the example of docs/trackers.md as it stands there, in real runs of two ranks."""

import json
import re
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from stiv_model.distributed.run_identity import identity
from stiv_model.monitoring import trackers
from stiv_model.settings import MonitoringSettings
from stiv_model.training.run_files import LOSSES, SHOWN
from tests.stiv_model.ranks import ROOT
from tests.stiv_model.runs import describe, table

WANDB = """
import json, random
from pathlib import Path
import numpy, torch
from PIL import Image

class Run:
    def __init__(self, id, config):
        self.lines = open(Path(__file__).with_name(f"{id}.jsonl"), "a")
        print(json.dumps({"config": config["recipe_name"]}), file=self.lines)
    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")
    def log(self, values):
        print(json.dumps(values), file=self.lines)
        random.random(), numpy.random.rand(), torch.rand(1)  # draws, which the training must not notice
    def finish(self):
        self.lines.close()

def init(project, name, id, resume, config):
    assert resume == "allow"
    return Run(id, config)

def Video(content, format):
    assert format == "gif"
    with Image.open(content) as video:
        return {"frames": video.n_frames, "seconds each": video.info["duration"] / 1000}
"""


@pytest.fixture
def example(tmp_path, monkeypatch) -> Path:
    """The folder in which Python finds the example, and a stand-in for `wandb` that writes what it is given."""
    page = (ROOT / "docs/trackers.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "wandb_tracker.py").write_text(code)
    (tmp_path / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in ("wandb", "wandb_tracker"):
        sys.modules.pop(module, None)


def test_the_example_goes_on_in_one_run_and_shows_figures_and_videos(example):
    import numpy as np

    for done in (0, 2):
        (tracker,) = trackers.load(["wandb_tracker:WandbTracker"])
        tracker.start(describe(), example / "shown", done)
        tracker.log(done + 1, {"loss": 0.5, "loss by noise level/t0.0": float("nan")})
        tracker.video(done + 1, "validation/prompt 0", np.arange(4 * 192, dtype=np.uint8).reshape(4, 8, 8, 3), 8)
        tracker.flush()
        tracker.end()
    (lines,) = example.glob("*.jsonl")
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert found[0] == found[3] == {"config": "stiv"}
    assert [line["step"] for line in found if "loss" in line] == [1, 3]
    assert found[1] == {"step": 1, "loss": 0.5}
    assert found[2] == {"step": 1, "validation/prompt 0": {"frames": 4, "seconds each": 0.12}}


def test_a_run_does_not_notice_who_watches_it(example, latents, prepare, forkserver):
    works = {"watched": ("tensorboard", "wandb_tracker:WandbTracker"), "alone": ()}
    (example / "sitecustomize.py").write_text("")
    for name, chosen in works.items():
        work = example / name
        run = prepare(work, latents, monitoring=MonitoringSettings(trackers=chosen, validation_metrics=()))
        forkserver.finish(work, run, python_path=example)
    watched, alone = (example / name for name in works)
    assert table(watched, LOSSES, columns=4) == table(alone, LOSSES, columns=4)
    assert not list((alone / SHOWN).glob("events*"))
    (lines,) = example.glob("*.jsonl")
    losses = [json.loads(line).get("loss") for line in lines.read_text().splitlines()[1:]]
    assert losses == pytest.approx([float(row[1]) for row in table(watched, LOSSES)], rel=1e-6)
    for file in (
        "weights/model.safetensors",
        *(f"checkpoints/step-00000010/rank-0000{rank}.safetensors" for rank in (0, 1)),
    ):
        theirs = load_file(alone / file)
        assert all(weight.equal(theirs[name]) for name, weight in load_file(watched / file).items())
        assert (watched / file).read_bytes() == (alone / file).read_bytes()  # the random states are in the header


def test_another_tracker_or_metric_makes_no_other_run():
    plain = MonitoringSettings(trackers=(), validation_metrics=())
    other = MonitoringSettings(trackers=("a.b:C",), validation_metrics=("flicker",))
    assert identity(describe(monitoring=plain)) == identity(describe(monitoring=other))


def test_a_tracker_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"monitoring\.trackers names nowhere:Tracker"):
        trackers.load(["nowhere:Tracker"])


class Sound:
    """A tracker that notes the steps it heard of."""

    def __init__(self):
        self.heard = []

    def log(self, step, figures):
        self.heard.append(step)


class Failing(Sound):
    """One whose server goes away with the second step."""

    def log(self, step, figures):
        super().log(step, figures)
        if step == 2:
            raise ConnectionError("the server is gone")


def test_a_tracker_that_fails_is_named_once_and_the_others_go_on(caplog):
    told = trackers.Trackers([f"{__name__}:Failing", f"{__name__}:Sound"])
    failing, sound = told._working.values()
    for step in (1, 2, 3):
        told.tell(lambda tracker, step=step: tracker.log(step, {"loss": 0.5}))
    assert failing.heard == [1, 2]
    assert sound.heard == [1, 2, 3]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{__name__}:Failing failed (ConnectionError: the server is gone)" in caplog.text
