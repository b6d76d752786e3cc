"""A workspace beside another: one code and one file of settings, data of its own, and nothing else's folder taken."""

import shutil
from pathlib import Path

import pytest
import yaml

from flows import stages
from flows.commands import learn_workspace
from flows.commands.learn_workspace import prepare

ROOT = Path(__file__).parents[3]
DVC_YAML = """stages:
  corpus:
    cmd: cp tasks/made.py data
    deps: [tasks/made.py]
    params: [corpus.seed]
    outs: [data]
"""


@pytest.fixture
def top(tmp_path, monkeypatch) -> Path:
    """A repository with one stage, whose code is one line and whose output is a copy of it."""
    for room in ("flows", "tasks", "stiv_model", "prompts", "audits"):
        (tmp_path / room).mkdir()
    (tmp_path / "tasks/made.py").write_text("# first\n")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / ".dvcignore").write_text("__pycache__/\n")
    for name in ("params.yaml", "infra/params/learn.yaml", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with stages.Repo.init(no_scm=True) as repo, repo.config.edit("repo") as settings:
        settings["cache"]["type"] = "copy"
    return tmp_path


PARAMS = Path("infra/params/learn.yaml")
LEARN = Path("learn")


def test_the_stages_run_in_it_on_the_same_code_and_leave_the_top_alone(top, monkeypatch):
    before = {path for path in top.rglob("*") if ".dvc" not in path.parts}
    prepare(LEARN, PARAMS)
    prepare(LEARN, PARAMS)
    assert (LEARN / "params.yaml").samefile(PARAMS) and (LEARN / "tasks").samefile("tasks")
    assert stages.in_order() == ["corpus"], "the top does not see the stages of a workspace within it"
    assert (LEARN / "pyproject.toml").samefile("pyproject.toml"), "Prefect's settings, by which it keeps our lines"
    monkeypatch.chdir(LEARN)
    with stages.Repo() as repo:
        assert repo.config["cache"]["type"] == ["copy"], "its cache links as that of the top does"
        repo.reproduce("corpus")
    assert Path("data").read_text() == "# first\n" and stages.changes("corpus") is None
    (top / "tasks/made.py").write_text("# second\n")
    changed = stages.changes("corpus")
    assert changed and changed.code == ["tasks/made.py"], "a change of code is one of this workspace too"
    assert {path for path in top.rglob("*") if not {".dvc", "learn"} & set(path.relative_to(top).parts)} == before


def test_a_workspace_has_all_that_stages_need_and_none_makes():
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    made = {
        next(iter(out)) if isinstance(out, dict) else out
        for stage in declared
        for key in ("outs", "metrics", "plots")
        for out in stage.get(key, [])
    }
    needed = {dep for stage in declared for dep in stage["deps"]} - made - {"${source}"}
    assert {Path(dep).parts[0] for dep in needed} <= {str(name) for name in learn_workspace._CODE}


def test_settings_that_became_a_copy_are_refused_and_go_on_once_it_is_deleted(top):
    prepare(LEARN, PARAMS)
    copy = LEARN / "params.yaml"
    copy.unlink()
    shutil.copy(PARAMS, copy)
    with pytest.raises(ValueError, match=r"learn/params\.yaml is a copy, and must be a link to .*learn\.yaml.*delete"):
        prepare(LEARN, PARAMS)
    copy.unlink()
    prepare(LEARN, PARAMS)
    assert copy.samefile(PARAMS)


def test_a_folder_that_was_made_for_other_settings_keeps_them(top):
    prepare(LEARN, PARAMS)
    with pytest.raises(ValueError, match=r"learn/params\.yaml leads to .*learn\.yaml, and not to params\.yaml"):
        prepare(LEARN, Path("params.yaml"))
    prepare(Path("other"), Path("params.yaml"))
    assert (LEARN / "params.yaml").samefile(PARAMS)


def test_made_half_it_is_made_whole(top):
    prepare(LEARN, PARAMS)
    (LEARN / "params.yaml").unlink()
    shutil.rmtree(LEARN / ".dvc")
    (LEARN / ".dvc.scratch/.dvc").mkdir(parents=True)
    prepare(LEARN, PARAMS)
    assert (LEARN / "params.yaml").samefile(PARAMS) and (LEARN / ".dvc/config").is_file()
    assert not (LEARN / ".dvc.scratch").exists()


@pytest.mark.parametrize("folder", [".", "tasks", "dvc.yaml"])
def test_a_folder_with_something_else_in_it_is_not_touched(top, folder):
    before = sorted(top.rglob("*"))
    with pytest.raises(ValueError, match=f"--folder {folder} "):
        prepare(Path(folder), PARAMS)
    assert sorted(top.rglob("*")) == before


def test_wrong_settings_and_a_wrong_place_are_named_before_anything_is_made(top, monkeypatch):
    wrong = Path("wrong.yaml")
    wrong.write_text(PARAMS.read_text().replace("shapes_pixels:", "shapes_pixel:"))
    with pytest.raises(ValueError, match=r"wrong\.yaml.*shapes_pixel"):
        prepare(LEARN, wrong)
    (top / "dvc.yaml").rename(top / "aside")
    with pytest.raises(FileNotFoundError, match=r"dvc\.yaml does not exist here: run stiv at the top"):
        prepare(LEARN, PARAMS)
    assert not LEARN.exists()
