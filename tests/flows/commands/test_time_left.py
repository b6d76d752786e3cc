"""How far a run is said to be, and how long it still takes: by hand-made figures whose answer is known."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.commands import time_left
from flows.commands.time_left import Place, Training
from flows.params import load_params

ROOT = Path(__file__).parents[3]
STAGES = ["corpus", "t2i", "t2v", "samples"]
THEN = {"corpus": 10.0, "t2i": 100.0, "t2v": 200.0, "samples": 40.0}


def test_what_is_left_takes_as_long_beside_what_is_done_as_it_did_then():
    place = Place(("corpus",), "t2i", 40.0)
    left = time_left.whole_left(place, STAGES, THEN, {"corpus": 20.0}, None)
    assert left == (2 * 100 - 40) + 2 * (200 + 40), "this machine took twice as long so far"


def test_a_training_counts_by_its_own_steps():
    place, training = Place(("corpus",), "t2i", 90.0), Training(step=50, steps=100, seconds=80.0)
    left = time_left.whole_left(place, STAGES, THEN, {"corpus": 10.0}, training)
    assert left == pytest.approx(80.0 + (10 + 80) / (10 + 50) * (200 + 40))


def test_a_stage_that_was_up_to_date_tells_nothing_of_the_pace():
    place = Place(("corpus", "t2i"), "t2v", 0.0)
    assert time_left.whole_left(place, STAGES, THEN, {"t2i": 100.0}, None) == 240.0


@pytest.mark.parametrize(
    ("then", "here"), [(THEN | {"gone": 1.0}, {"corpus": 10.0}), ({"corpus": 10.0}, {"corpus": 10.0}), (THEN, {})]
)
def test_of_other_stages_or_before_anything_is_done_nothing_is_said(then, here):
    assert time_left.whole_left(Place(("corpus",), "t2i", 1.0), STAGES, then, here, None) is None


def test_a_line_has_the_stage_its_training_and_the_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    work = tmp_path / "checkpoints/t2i.partial"
    work.mkdir(parents=True)
    (work / "losses.tsv").write_text("step\tseconds\n1\t2.0\n39\t78.0\n40\t8")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/times.json").write_text('{"stages": {"corpus": {"seconds": 10.0, "skipped": false}}}')
    place = Place(("corpus",), "t2i", 80.0)
    steps = load_params(Path("params.yaml")).train["t2i"].steps
    training = time_left.training_of("t2i")
    assert training == Training(39, steps, 78.0), "the row that is being written does not count"
    alone = f"== stage 2 of 4, t2i: step 39 of {steps}, {78 * (steps - 39) / 39 / 60:.0f} min left of this training"
    assert time_left.told(place, STAGES, None) == alone
    whole = time_left.whole_left(place, STAGES, THEN, {"corpus": 10.0}, training)
    assert f"; about {whole / 60:.0f} min left of all" in time_left.told(place, STAGES, THEN)
    assert time_left.told(Place((), "corpus", 1.0), STAGES, None) == "== stage 1 of 4, corpus"


def test_where_the_pipeline_is_is_read_from_its_tasks():
    began = datetime.now(UTC) - timedelta(seconds=30)
    run = [("corpus", "COMPLETED"), ("t2i", "RUNNING"), ("train t2i", "RUNNING")]
    runs = [SimpleNamespace(name=name, state_type=state, start_time=began) for name, state in run]
    place = time_left.place_of(runs, STAGES)
    assert place and place[:2] == (("corpus",), "t2i") and 30 <= place.seconds < 60
    assert time_left.place_of(runs[:1], STAGES) is None
