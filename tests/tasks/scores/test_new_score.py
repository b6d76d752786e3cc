"""A score is added by one file and one row (docs/scores.md): in a copy of the code it then is wherever scores are."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

FILE = '''"""How red a picture is."""

import numpy as np


def redness(picture: np.ndarray) -> float:
    """Return the mean of the red channel, 0 to 1.

    Args:
        picture: BGR, uint8, height x width x 3.
    """
    return float(picture[:, :, 2].mean()) / 255
'''
ROW = """    Score("redness", "scores", 0, 1, "share of red", "neither", "still", "", 15, "tasks.scores.redness",
          "0 no red to 1 all red."),
"""
USED = """
import contextlib
import io
import json
from pathlib import Path

import cv2
import numpy as np

from flows.__main__ import main
from flows.params import load_params
from tasks.clips import thresholds
from tasks.scores.stage import Scorer
from tasks.storage import tables


def told(*words):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main(list(words))
    return said.getvalue()


def still(red):
    return cv2.imencode(".png", np.full((64, 64, 3), (0, 0, red), np.uint8))[1].tobytes()


params, table = load_params(Path("params.yaml")), Path("data/scores/scores.parquet")
scorer = Scorer(params.scores.model_copy(update={"text_detector": "strokes"}))
shot = dict.fromkeys(tables.SHOTS.names) | {field.name: 0.5 for field in tables.SHOTS if str(field.type) == "double"}
shot |= {"status": "ok", "width": 64, "height": 64, "start_pts": 0, "end_pts": 4, "time_base": "1/1", "end": 4.0}
rows = [scorer.score(shot | {"clip": f"red {red}"}, [still(red), still(red)]) for red in (0, 102, 255)]
tables.write_rows(table, rows, tables.SCORES)

others = [name for name in type(params.clips).model_fields if name in tables.SCORES.names and name != "redness"]
free = [f"clips.{name}=" + ("null" if name == "nsfw" else "{min: null, max: null}") for name in others]
limits = ["clips.redness.min=0.2", "clips.redness.max=0.9"]
found = {
    "columns": tables.CLIPS.names,
    "scored": [row["redness"] for row in tables.read_rows(table, tables.SCORES)],
    "free": told("funnel", "--set", *free),
    "limited": told("funnel", "--set", *free, *limits),
    "select": told("select", "--help"),
    "possible": thresholds.POSSIBLE["redness"],
}
Path("found.json").write_text(json.dumps(found))
"""
GATE = """
import os

os.environ["GX_ANALYTICS_ENABLED"] = "False"
import great_expectations as gx
import pandas as pd

from tasks.clips.expectations import judged_suite

(possible,) = (one for one in judged_suite() if getattr(one, "column", None) == "redness")
assets = gx.get_context(mode="ephemeral").data_sources.add_pandas("clips")
for red, is_possible in ((1.0, True), (1.01, False)):
    batch = assets.add_dataframe_asset(str(red)).add_batch_definition_whole_dataframe("rows")
    judged = batch.get_batch({"dataframe": pd.DataFrame({"redness": [0.5, red]})})
    assert judged.validate(possible).success is is_possible, red
"""


def put_before(path: Path, mark: str, text: str) -> None:
    before, mark, after = path.read_text().partition(mark)
    assert mark
    path.write_text(before + text + mark + after)


def run(top: Path, *words: str) -> None:
    """Run Python with the copy's modules before those that are installed here."""
    environment = os.environ | {"PYTHONPATH": str(top)}
    done = subprocess.run(
        [sys.executable, *words], cwd=top, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The code with one file and one row more."""
    top = tmp_path_factory.mktemp("copy")
    for name in ("flows", "tasks", "stiv_model", "docs"):
        shutil.copytree(ROOT / name, top / name)  # with what is compiled already
    shutil.copy(ROOT / "params.yaml", top)
    (top / "data/scores").mkdir(parents=True)
    (top / "tasks/scores/redness.py").write_text(FILE)
    put_before(top / "tasks/storage/scores.py", ")  # fmt: skip\n", ROW)
    return top


@pytest.fixture(scope="module")
def found(copy) -> dict[str, Any]:
    """What the code then makes and says."""
    run(copy, "-c", USED)
    return json.loads((copy / "found.json").read_text())


def test_the_page_tells_of_one_file_and_one_row():
    told = (ROOT / "docs/scores.md").read_text().split("## To add a score\n")[1].split("\n## ")[0]
    steps = re.findall(r"^\d\. .*", told, re.MULTILINE)
    assert [re.findall(r"`(tasks/[\w/]+\.py)`", step) for step in steps] == [
        ["tasks/scores/NAME.py"],
        ["tasks/storage/scores.py"],
    ]


def test_a_new_score_is_measured_and_has_its_column(found):
    assert found["scored"] == pytest.approx([0, 0.4, 1])
    assert "redness" in found["columns"]


def test_the_funnel_has_a_step_for_a_new_score_and_takes_its_threshold(found):
    def step(text: str) -> list[str]:
        (line,) = (line for line in text.splitlines() if line.startswith("redness"))
        return line.split()

    assert step(found["free"])[1:4:2] == ["3", "0"]  # clips left, clips lost
    assert step(found["limited"])[1:4:2] == ["1", "2"]


def test_the_help_of_select_has_the_threshold_of_a_new_score(found):
    head, meaning = re.search(r"^  (redness .*)\n +(.*)$", found["select"], re.MULTILINE).groups()
    assert head == "redness  (section of min, max; default {min: null, max: null})"
    assert meaning == "0 no red to 1 all red."


def test_the_gate_knows_the_possible_range_of_a_new_score(found):
    assert found["possible"] == [0, 1]  # tests/tasks/clips/test_expectations.py refuses rows outside of such


@pytest.mark.long  # Great Expectations in a process of its own: ten seconds
def test_the_gate_refuses_a_new_score_outside_its_possible_range(copy):
    run(copy, "-c", GATE)


def test_the_table_of_the_documentation_has_a_new_score(copy):
    run(copy, "docs/generate/score_table.py")
    cells = "0 to 1 | share of red | neither | scores, still |  | `tasks/scores/redness.py` | 0 no red to 1 all red."
    assert f"| `redness` | {cells} |" in (copy / "docs/scores.md").read_text()
