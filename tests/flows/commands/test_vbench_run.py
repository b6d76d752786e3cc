"""`stiv vbench run` holds what a VBench environment says to the plan: one that lies or crashes is caught by name.

The environments are made here: a Python whose package `vbench` has VBench's class and writes JSON of its shape.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest

from flows.__main__ import main
from tasks.evaluation.vbench import measured, suite, weights

DIMENSION = "motion_smoothness"
FAKE = """
import json, os, sys
from pathlib import Path

class VBench:
    def __init__(self, device, full_info_dir, output_path):
        self.output = Path(output_path)

    def evaluate(self, videos_path, name, dimension_list, local, read_frame, mode, **options):
        assert local and "PYTHONHOME" not in os.environ and os.environ["HF_HUB_OFFLINE"] == "1"
        (dimension,) = dimension_list
        rows = [{"video_path": str(path), "video_results": 0.5} for path in sorted(Path(videos_path).iterdir())
                if path.name.rpartition("-")[0] in PROMPTS[dimension]]
        mean = 0.5
BEHAVIOUR
        (self.output / f"{name}_eval_results.json").write_text(json.dumps({dimension: [mean, rows]}))
"""
FILTER = """
import json, shutil
from pathlib import Path
from vbench import PROMPTS

def static_filter(args):
    found = {prompt: {"static_count": 0, "static_path": []} for prompt in PROMPTS[args.filter_scope]}
    Path(args.result_path, "filtered_videos").mkdir(parents=True)
    for path in sorted(Path(args.videos_path).glob("*.mp4")):
        row = found.get(path.name.rpartition("-")[0])
        if row is not None and row["static_count"] < 2 and not path.name.startswith("a toilet"):
            name = f"{path.name.rpartition('-')[0]}-{row['static_count']}.mp4"
            shutil.copy(path, Path(args.result_path, "filtered_videos", name))
            row["static_count"] += 1
    Path(args.result_path, args.store_name).write_text(json.dumps(found))
"""


def environment(tmp_path: Path, behaviour: str = "", commit: str = measured.COMMIT) -> Path:
    """Make a VBench environment that behaves so before it writes its result; return its Python."""
    package = tmp_path / "site/vbench"
    (package / "cli").mkdir(parents=True, exist_ok=True)
    prompts = {
        one: sorted({v.prompt for v in suite.planned(dimensions=[one])}) for one in (DIMENSION, measured.FLICKER)
    }
    code = FAKE.replace("BEHAVIOUR", f"        {behaviour or 'pass'}")
    (package / "__init__.py").write_text(f"PROMPTS = {prompts!r}\n{code}")
    (package / "cli/__init__.py").touch()
    (package / "cli/static_filter.py").write_text(FILTER)
    (tmp_path / "site/torch.py").write_text("device = str\n")
    about = tmp_path / "site/vbench-0.1.5.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text("Name: vbench\nVersion: 0.1.5\n")
    (about / "direct_url.json").write_text(json.dumps({"url": "x", "vcs_info": {"vcs": "git", "commit_id": commit}}))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}/site" exec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder with files that have the names of a dimension's videos."""
    folder = tmp_path / "out"
    (folder / "videos").mkdir(parents=True)
    for video in suite.planned(dimensions=[DIMENSION]):
        (folder / "videos" / video.name).touch()
    return folder


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A folder with files in the places of weights."""
    folder = tmp_path / "weights"
    for one in weights.listed([DIMENSION, measured.FLICKER]):
        (folder / one.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / one.path).touch()
    return folder


def run(folder: Path, python: Path, stored: Path, dimension: str = DIMENSION) -> None:
    words = ["--dimensions", dimension, "--python", str(python), "--weights", str(stored), "--device", "cpu"]
    main(["vbench", "run", str(folder), *words])


def refused(*given: object) -> str:
    with pytest.raises(SystemExit) as stop:
        run(*given)
    assert "\n" not in str(stop.value.code)
    return str(stop.value.code)


def test_a_result_of_every_planned_video_is_kept_scored_and_not_made_again(videos, stored, tmp_path, capsys):
    python = environment(tmp_path)
    run(videos, python, stored)
    assert capsys.readouterr().out.startswith(f"{DIMENSION}: 0.5000 of 360 videos\n")
    assert sorted(path.name for path in (videos / "results").iterdir()) == [
        f"{DIMENSION}_eval_results.json",
        f"{DIMENSION}_run.json",
    ]
    environment(tmp_path, "raise SystemExit(3)")
    run(videos, python, stored)
    assert "measured before, of the same videos" in capsys.readouterr().out
    changed = next((videos / "videos").iterdir())
    changed.write_text("another video")
    assert "exit code 3" in refused(videos, python, stored)


def test_one_video_that_is_dropped_is_caught_by_name(videos, stored, tmp_path):
    said = refused(videos, environment(tmp_path, "rows.pop(3)"), stored)
    assert f"1 of 1 dimensions failed: {DIMENSION} (1 of 360 planned videos are not in the result, 'a bear" in said
    assert not (videos / "results" / f"{DIMENSION}_eval_results.json").exists()


def test_a_crash_that_ends_with_0_is_caught(videos, stored, tmp_path):
    said = refused(videos, environment(tmp_path, 'print("CUDA out of memory"); os._exit(0)'), stored)
    assert f"{DIMENSION} (its process ended with 0 and left no result: " in said
    assert "log.txt" in said


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ('mean = float("nan")', "is nan, as VBench says where it found no video"),
        ('rows[7]["video_results"] = float("nan")', "-2.mp4' is nan"),
    ],
)
def test_nan_is_caught_in_the_mean_and_in_one_video(videos, stored, tmp_path, behaviour, said):
    assert said in refused(videos, environment(tmp_path, behaviour), stored)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("raise RuntimeError('no kernel image')", "RuntimeError: no kernel image"),
        ("rows.append(rows[0])", "2 times"),
        ('rows.append({"video_path": "x.mp4", "video_results": 1.0})', "1 videos that were not planned, 'x.mp4'"),
        ('dimension = "scene"', f"the result has scene, and not {DIMENSION} alone"),
    ],
)
def test_what_else_a_result_may_be_is_caught(videos, stored, tmp_path, behaviour, said):
    assert said in refused(videos, environment(tmp_path, behaviour), stored)


def test_flicker_is_held_to_what_the_filter_kept(stored, tmp_path, capsys):
    folder = tmp_path / "out"
    (folder / "videos").mkdir(parents=True)
    for video in suite.planned(dimensions=[measured.FLICKER]):
        (folder / "videos" / video.name).touch()
    run(folder, environment(tmp_path), stored, measured.FLICKER)
    told = f"{measured.FLICKER}: 0.5000 of 148 videos; 1 prompts have none in which nothing moves, and are not measured"
    assert told in capsys.readouterr().out


def test_of_flicker_five_videos_of_a_prompt_count_at_most_and_no_prompt_is_left_out(tmp_path):
    prompts = sorted({video.prompt for video in suite.planned(dimensions=[measured.FLICKER])})
    kept = {prompt: {"static_count": count} for prompt, count in zip(prompts, [0, 7] + [1] * 73, strict=True)}
    (tmp_path / "static.json").write_text(json.dumps(kept))
    names = measured.expected(measured.FLICKER, tmp_path / "static.json")
    assert len(names) == 5 + 73 and f"{prompts[0]}-0.mp4" not in names and f"{prompts[1]}-4.mp4" in names
    (tmp_path / "static.json").write_text(json.dumps({prompt: kept[prompt] for prompt in prompts[1:]}))
    with pytest.raises(ValueError, match="VBench's filter says nothing of 1 prompts"):
        measured.expected(measured.FLICKER, tmp_path / "static.json")


def test_what_is_missing_is_told_before_anything_runs(videos, stored, tmp_path):
    python = environment(tmp_path, commit="0" * 40)
    assert f"has VBench at {'0' * 40}, and not at 45e79ec" in refused(videos, python, stored)
    assert "make vbench-env makes it" in refused(videos, tmp_path / "nothing", stored)
    (tmp_path / "site/vbench-0.1.5.dist-info/METADATA").unlink()
    shutil.rmtree(tmp_path / "site/vbench-0.1.5.dist-info")
    assert "has no VBench: " in refused(videos, python, stored)
    assert "is missing, for motion_smoothness" in refused(videos, python, tmp_path / "no weights")
    (videos / "videos/notes.txt").touch()
    assert "holds 'notes.txt', and VBench takes the suffix" in refused(videos, python, stored)
    next((videos / "videos").glob("*.mp4")).unlink()
    assert "1 of 360 videos are not in" in refused(videos, python, stored)


def test_weights_that_are_others_or_missing_are_told_and_an_unknown_sha256_is_said_to_be_unknown(tmp_path, capsys):
    main(["vbench", "weights", "--folder", str(tmp_path), "--dimensions", DIMENSION])
    told = capsys.readouterr().out
    assert told.splitlines()[0] == f"{tmp_path}/amt_model/amt-s.pth" and "sha256 not known" in told
    (tmp_path / "pyiqa_model").mkdir()
    (tmp_path / "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth").write_text("another")
    with pytest.raises(SystemExit, match="files are missing or are others"):
        main(["vbench", "weights", "--folder", str(tmp_path), "--check", "--dimensions", "imaging_quality"])
    assert "\n  another, sha256 " in capsys.readouterr().out
    with pytest.raises(ValueError, match="1 of 1 files of weights are not those"):
        weights.check(tmp_path, ["imaging_quality"])
