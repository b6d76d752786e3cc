"""A training's folder: what was trained there is never deleted, and a run goes on only where it is that one."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from stiv_model.distributed import run_identity
from stiv_model.settings import LearnedSettings, RateDecay, Run
from tasks.training import run_folder
from tests.holding import holding
from tests.stiv_model.runs import describe

HOLD = """import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("in", flush=True)
sys.stdin.read()"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "t2v"


@pytest.fixture
def work(out: Path) -> Path:
    """The folder of a run that was stopped after it had saved a checkpoint."""
    work = run_folder.open_run(describe(), out)
    (work / "checkpoints/step-00400000").mkdir(parents=True)
    (work / "checkpoints/step-00400000/rank-00000.safetensors").write_bytes(b"three weeks")
    return work


def content(work: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}


def changed(run: Run, section: str, **values: object) -> Run:
    return run.model_copy(update={section: getattr(run, section).model_copy(update=values)})


def other(value: object, chance: random.Random) -> object:
    """Return another value of the kind, as run.json has it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + chance.choice([-1, 1, 1000]) if value else 1
    return "something else"


def test_whatever_setting_has_changed_no_checkpoint_is_lost_and_the_setting_is_named(work, out):
    chance = random.Random(20)
    recorded = json.loads((work / "run.json").read_text())
    keys = chance.sample(sorted(run_identity.identity_of(recorded)), 20)
    for key in keys:
        *path, last = key.split(".")
        was = json.loads(json.dumps(recorded))
        section = was
        for name in path:
            section = section[name]
        section[last] = other(section[last], chance) if key != "recipe.steps" else section[last] + 1
        (work / "run.json").write_text(json.dumps(was))
        before = content(work)
        with pytest.raises(ValueError, match=r"step-00400000 of another run") as told:
            run_folder.open_run(describe(), out)
        for part in (key, str(work), "put that back", "move or delete"):
            assert part in str(told.value)
        assert content(work) == before, key


def test_a_run_of_which_only_the_steps_grew_goes_on(work, out):
    (work / "weights").mkdir()  # it had come to its end
    kept = content(work / "checkpoints")
    longer = changed(describe(), "recipe", steps=describe().recipe.steps + 1)
    assert run_folder.open_run(longer, out) == work
    assert content(work / "checkpoints") == kept
    assert json.loads((work / "run.json").read_text()) == longer.model_dump(mode="json")
    assert not (work / "weights").exists()


@pytest.mark.parametrize("changes", [{"steps": 11}, {"steps": 13, "learning_rate": 2e-3}])
def test_a_run_that_became_shorter_or_that_grew_and_learns_otherwise_is_a_question(work, out, changes):
    before = content(work)
    with pytest.raises(ValueError, match=r"recipe\.steps was 12"):
        run_folder.open_run(changed(describe(), "recipe", **changes), out)
    assert content(work) == before


def test_a_run_whose_rate_decays_does_not_grow(work, out):
    decay = RateDecay(kind="linear", steps=4, floor=0.0)
    decaying = changed(describe(), "recipe", decay=decay)
    (work / "run.json").write_text(decaying.model_dump_json())
    run_folder.open_run(decaying, out)
    with pytest.raises(ValueError, match=r"recipe\.steps was 12, is 13"):
        run_folder.open_run(changed(decaying, "recipe", steps=13), out)
    with pytest.raises(ValueError, match=r"recipe\.decay\.floor was 0\.0, is 0\.1"):
        run_folder.open_run(changed(describe(), "recipe", decay=decay.model_copy(update={"floor": 0.1})), out)


def test_what_says_how_and_not_what_may_change(work, out):
    kept = content(work / "checkpoints")
    run_folder.open_run(changed(describe(), "training", ranks=8, checkpoint_steps=7, hang_seconds=1.0), out)
    assert content(work / "checkpoints") == kept


def edit(work: Path, **training: object) -> None:
    recorded = json.loads((work / "run.json").read_text())
    recorded["training"] |= training
    for key, value in training.items():
        if value is None:
            del recorded["training"][key]
    (work / "run.json").write_text(json.dumps(recorded))


def test_a_run_of_a_release_without_a_key_goes_on_where_the_key_changes_nothing(work, out):
    edit(work, temporal_mask_ratio=None)
    run_folder.open_run(describe(), out)
    edit(work, temporal_mask_ratio=None)
    with pytest.raises(ValueError, match=r"training\.temporal_mask_ratio was not there, is 0\.5"):
        run_folder.open_run(changed(describe(), "training", temporal_mask_ratio=0.5), out)
    for key in ("decay", "balance"):
        (work / "run.json").write_text(json.dumps(without(describe(), "recipe", key)))
        run_folder.open_run(describe(), out)
    with pytest.raises(ValueError, match=r"recipe\.balance was not there, is category"):
        run_folder.open_run(changed(describe(), "recipe", balance="category"), out)
    edit(work, of_the_last_release=1)
    with pytest.raises(ValueError, match=r"training\.of_the_last_release was 1, is gone"):
        run_folder.open_run(describe(), out)


def test_every_neutral_value_is_one_of_a_key_that_exists():
    learned = LearnedSettings(kind="learned", rows=4, columns=4, num_temporal=2, std=0.5)
    keys = run_identity.identity(changed(describe(), "model", positions=learned))
    assert run_identity._NEUTRAL.keys() <= keys.keys()


def without(run: Run, section: str, key: str) -> dict[str, Any]:
    recorded = run.model_dump(mode="json")
    del recorded[section][key]
    return recorded


def test_the_record_of_a_run_of_a_release_without_decay_or_gain_is_read():
    assert Run.model_validate(without(describe(), "recipe", "decay")) == describe()
    assert Run.model_validate(without(describe(), "recipe", "balance")) == describe()
    assert Run.model_validate(without(describe(), "model", "temporal_gain")) == describe()
    assert Run.model_validate(without(describe(), "model", "temporal_contrast")) == describe()
    with pytest.raises(ValueError, match=r"recipe\.batch"):
        Run.model_validate(without(describe(), "recipe", "batch"))


@pytest.mark.parametrize("text", [None, "", '{"recipe', "[]"])
def test_checkpoints_of_which_nobody_says_whose_they_are_stay(work, out, text):
    (work / "run.json").unlink() if text is None else (work / "run.json").write_text(text)
    kept = content(work / "checkpoints")
    with pytest.raises(ValueError, match=r"run\.json.* is missing or damaged"):
        run_folder.open_run(describe(), out)
    assert content(work / "checkpoints") == kept


@pytest.mark.parametrize("made", ["checkpoints/step-00000002.damaged-1", "weights"])
def test_a_damaged_checkpoint_and_finished_weights_are_work_too(out, made):
    work = run_folder.open_run(describe(), out)
    (work / made).mkdir(parents=True)
    with pytest.raises(ValueError, match="of another run"):
        run_folder.open_run(changed(describe(), "recipe", learning_rate=0.5), out)
    assert (work / made).exists()


def test_what_takes_minutes_is_made_anew_for_another_run(out):
    work = run_folder.open_run(describe(), out)
    (work / "start").mkdir()
    run_folder.open_run(describe(), out)
    assert (work / "start").exists()
    run_folder.open_run(changed(describe(), "recipe", learning_rate=0.5), out)
    assert not (work / "start").exists()


def test_the_folder_of_a_run_that_is_alive_is_not_touched(work, out):
    with holding(HOLD, str(work / "lock")):
        before = content(work)
        with pytest.raises(RuntimeError, match="in use by ranks of another attempt"):
            run_folder.open_run(describe(), out)
        assert content(work) == before
    run_folder.open_run(describe(), out)
