"""What makes DVC train again and what not, on a copy of the code with outputs that were committed by hand."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALONE = {"DVC_NO_ANALYTICS": "1", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/nowhere"}
ASK = """import sys
from flows import stages
from flows.pipeline import refuse_retraining
found = stages.changes(sys.argv[1])
print(found)
if found:
    refuse_retraining(sys.argv[1], found, 1.0)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A workspace in which t2i and t2v have been trained: their outputs are small files, the last run took 2 hours."""
    folder = tmp_path_factory.mktemp("trained") / "workspace"
    for name in ("flows", "tasks", "stiv_model"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "embedded"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    for made in (
        "data/latents/latents.parquet",
        "checkpoints/t2i/model.safetensors",
        "checkpoints/t2v/model.safetensors",
    ):
        (folder / made).parent.mkdir(parents=True)
        (folder / made).write_text(made)
    for stage in ("t2i", "t2v"):
        for table in (f"reports/losses/{stage}.tsv", f"reports/noise_levels/{stage}.tsv"):
            (folder / table).parent.mkdir(parents=True, exist_ok=True)
            (folder / table).write_text("step\tloss\tt0.5\tseconds\n1\t1.0\t1.0\t7200\n")
    run(folder, "-m", "dvc", "init", "-q", "--no-scm")
    run(folder, "-m", "dvc", "commit", "-f", "t2i", "t2v")
    run(folder, "-c", "from flows import stages; stages.note_code('t2v')")
    return folder


@pytest.fixture
def workspace(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / "workspace", symlinks=True)
    return tmp_path / "workspace"


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=ALONE | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout + done.stderr


def comment(folder: Path, module: str) -> None:
    with (folder / module).open("a") as file:
        file.write("# a comment\n")


def outputs(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for place in ("checkpoints", "reports") for path in (folder / place).rglob("*.*")}


def test_a_comment_in_what_watches_trains_nothing_again(workspace):
    for module in (
        "stiv_model/monitoring/tensorboard_log.py",
        "stiv_model/monitoring/validation.py",
        "stiv_model/pipeline/pipeline.py",
        "tasks/pages/report.py",
        "flows/train.py",
    ):
        comment(workspace, module)
    assert "up to date" in run(workspace, "-m", "dvc", "status", "t2i", "t2v")


@pytest.mark.parametrize(
    "module", ["stiv_model/network/block.py", "stiv_model/training/loss.py", "tasks/training/launch.py"]
)
def test_a_change_in_what_decides_weights_is_seen(workspace, module):
    comment(workspace, module)
    told = run(workspace, "-m", "dvc", "status", "t2i", "t2v")
    assert "up to date" not in told
    assert str(Path(module).parent) in told


def test_a_training_that_took_long_is_not_repeated_for_a_change_of_code_alone(workspace):
    comment(workspace, "stiv_model/network/block.py")
    before = outputs(workspace)
    last = run(workspace, "-c", ASK, "t2v").strip().splitlines()[-1]
    for said in (
        "(stiv_model/network/block.py)",
        "took 2 hours",
        "pipeline.retrain_hours 1",
        "`dvc commit t2v`",
        "`stiv pipeline --retrain t2v`",
    ):
        assert said in last
    assert outputs(workspace) == before
    run(workspace, "-m", "dvc", "commit", "-f", "t2v")
    assert "None" in run(workspace, "-c", ASK, "t2v").splitlines()


def test_where_nobody_noted_the_files_of_this_code_the_room_is_named(workspace):
    comment(workspace, "stiv_model/network/block.py")
    run(workspace, "-m", "dvc", "commit", "-f", "t2v")  # so the note is about other code than dvc.lock
    comment(workspace, "stiv_model/network/layers.py")
    assert "(stiv_model/network)" in run(workspace, "-c", ASK, "t2v")


def change_data(folder: Path) -> None:
    (folder / "data/latents/latents.parquet").write_text("other")


def change_setting(folder: Path) -> None:
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("\n  accumulation: 1", "\n  accumulation: 2"))


def shorten(folder: Path) -> None:
    table = folder / "reports/losses/t2v.tsv"
    table.write_text(table.read_text().replace("7200", "60"))


@pytest.mark.parametrize("change", [change_data, change_setting, shorten])
def test_with_other_data_or_settings_or_after_a_short_run_it_is(workspace, change: Callable[[Path], None]):
    comment(workspace, "stiv_model/network/block.py")
    change(workspace)
    told = run(workspace, "-c", ASK, "t2v")
    assert "Changes(code=['stiv_model/network" in told
    assert "Error" not in told


def test_a_stage_that_cannot_start_is_told_before_its_output_is_touched(workspace):
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("\n  ranks: 2", "\n  ranks: 7"))
    before = outputs(workspace)
    code = "from flows.pipeline import check_start; check_start('t2v')"
    last = run(workspace, "-c", code).strip().splitlines()[-1]
    assert "stage t2v cannot start, and nothing was touched" in last
    assert "training.ranks 7" in last
    assert outputs(workspace) == before
