"""`stiv vbench run` and `weights`: VBench's own code in an environment of its own, and what it reads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from flows.running import locks
from tasks.evaluation.vbench import measured
from tasks.evaluation.vbench import weights as files
from tasks.evaluation.vbench.conventions import convention
from tasks.evaluation.vbench.sampled import VIDEOS
from tasks.evaluation.vbench.suite import planned
from tasks.operations import processes
from tasks.storage import atomic

_RUNNER = Path(__file__).parents[2] / "infra/vbench/runner.py"
_RESULTS = "results"
_STATIC = "static.json"
_NOWHERE = "http://127.0.0.1:9"  # what is missing is told, never fetched in the middle of a run


def run(
    folder: Path,
    /,
    dimensions: list[str] | None = None,
    python: Path = Path("infra/vbench/.venv/bin/python"),
    weights: Path = Path("~/.cache/vbench"),
    device: Literal["cuda", "cpu"] = "cuda",
) -> None:
    """Measure the videos of `stiv vbench sample` by VBench's own code, and hold its results to the plan.

    It runs git 45e79ec in an environment of its own (make vbench-env), a process for each dimension, without network.
    FOLDER/results gets DIMENSION_eval_results.json, for `stiv vbench score`. A dimension fails, and is named, where
    its process fails, where there is no result, where a planned video is not in it, or where a number is none. What
    is measured of the same videos is not measured again. **This has not been run with the real VBench yet.**

    Args:
        folder: Folder that `stiv vbench sample` made, or one whose folder videos has the same names.
        dimensions: Which dimensions; all sixteen where none is named. Object class, multiple objects, color and spatial
            relationship need detectron2 in the environment; the others do not.
        python: Python of VBench's environment.
        weights: Folder of VBench's weights, which are checked before; nothing is fetched.
        device: Where VBench computes: cuda (the default) or cpu.

    examples:
      stiv vbench run vbench/mine
      stiv vbench run vbench/mine --dimensions motion_smoothness dynamic_degree
      stiv vbench run vbench/mine --python /opt/vbench/bin/python --weights /data/vbench

    Raises:
        OSError: there is no such environment, or nothing can be written.
        ValueError: videos or weights are missing or are others, or the environment has another VBench.
        SystemExit: a dimension failed.
    """
    wanted = dimensions or convention("t2v").counted
    measured.check_videos(folder, wanted)
    stored = weights.expanduser().absolute()
    files.check(stored, wanted)
    environment = _environment(stored)
    version = _version(python, environment)
    failed = []
    with locks.output(folder / _RESULTS, "vbench run"):
        for dimension in wanted:
            try:
                said = _measure(folder, dimension, python, environment, version | {"device": device})
            except (RuntimeError, ValueError, OSError) as error:
                said = f"failed: {' '.join(str(error).split())}"
                failed.append(f"{dimension} ({said.removeprefix('failed: ')})")
            print(f"{dimension}: {said}", flush=True)
    if failed:
        sys.exit(f"stiv vbench run: {len(failed)} of {len(wanted)} dimensions failed: {'; '.join(failed)}")
    print(f"{folder / _RESULTS}: {len(wanted)} dimensions; stiv vbench score makes a total of them")


def weights(folder: Path = Path("~/.cache/vbench"), dimensions: list[str] | None = None, check: bool = False) -> None:
    """Say which files of weights VBench reads, where each comes from and where it belongs.

    Nothing is fetched. `--check` reads them: exit code 1 where one is missing or is another than is known.

    Args:
        folder: Folder of VBench's weights.
        dimensions: Only what these dimensions read.
        check: Say of each whether it is there, and its sha256.

    examples:
      stiv vbench weights
      stiv vbench weights --check --dimensions motion_smoothness dynamic_degree

    Raises:
        OSError: a file cannot be read.
        SystemExit: with --check, a file is missing or is another.
    """
    stored, is_wrong = folder.expanduser(), False
    for one in files.listed(dimensions):
        lines = [f"{stored / one.path}", f"from {one.source}", f"for {', '.join(one.dimensions)}"]
        lines.append(f"sha256 {one.sha256 or 'not known'}{'...' if one.sha256 and len(one.sha256) < 64 else ''}")
        if check:
            what, found = files.status(one, stored)
            is_wrong |= what in ("missing", "another")
            lines.append(f"{what}{f', sha256 {found}' if found else ''}")
        print("\n  ".join(lines))
    if is_wrong:
        sys.exit("stiv vbench weights: files are missing or are others: see above")


def _environment(stored: Path) -> dict[str, str]:
    """Return the environment of the child: without our packages, and without network."""
    ours = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    nowhere = {name: _NOWHERE for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HOME": str(stored / "huggingface")}
    return ours | nowhere | offline | {"VBENCH_CACHE_DIR": str(stored), "no_proxy": ""}


def _version(python: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Return which VBench an environment has.

    Raises:
        FileNotFoundError: there is no such environment.
        ValueError: it has no VBench, or another one.
    """
    if not python.is_file():
        raise FileNotFoundError(f"{python} is not here: make vbench-env makes it, or name one by --python")
    done = subprocess.run([python, _RUNNER], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise ValueError(f"{python} has no VBench: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    version: dict[str, Any] = json.loads(done.stdout)
    if version["commit"] != measured.COMMIT:
        raise ValueError(f"{python} has VBench at {version['commit']}, and not at {measured.COMMIT}: make vbench-env")
    return version


def _measure(folder: Path, dimension: str, python: Path, environment: dict[str, str], how: dict[str, Any]) -> str:
    """Measure one dimension, unless that was done of the same videos; return what to say of it.

    Raises:
        OSError: there is no result, or nothing can be written.
        RuntimeError: the process failed.
        ValueError: the result is not what was planned.
    """
    out, note = (folder / _RESULTS / f"{dimension}{end}" for end in ("_eval_results.json", "_run.json"))
    videos = planned(dimensions=[dimension])
    stated = how | {"videos": measured.hash_of(folder, videos)}
    if out.exists() and note.exists() and json.loads(note.read_text()) == stated:
        return "measured before, of the same videos"
    work = (folder / _RESULTS / f"{dimension}.partial").absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    raft = Path(environment["VBENCH_CACHE_DIR"], "raft_model/models/raft-things.pth")
    request = {"dimension": dimension, "videos": str((folder / VIDEOS).absolute()), "output": str(work)}
    request |= {"device": how["device"], "static": _STATIC, "raft": str(raft)}
    (work / "request.json").write_text(json.dumps(request))
    with (work / "log.txt").open("w") as log:
        command = [str(python), str(_RUNNER), str(work / "request.json")]
        processes.run(command, environment, lambda line: print(line, file=log, flush=True))
    result = work / f"{dimension}_eval_results.json"
    if not result.exists():
        raise ValueError(f"its process ended with 0 and left no result: {work / 'log.txt'} is what it said")
    names = measured.expected(dimension, work / "filtered" / _STATIC)
    mean = measured.check(result, dimension, names)
    note.unlink(missing_ok=True)  # until the result and the note are of one run
    result.replace(out)
    with atomic.atomic_write(note) as path:
        path.write_text(json.dumps(stated, indent=2))
    shutil.rmtree(work)
    without = len({video.prompt for video in videos} - {name.rpartition("-")[0] for name in names})
    left_out = f"; {without} prompts have none in which nothing moves, and are not measured" if without else ""
    return f"{mean:.4f} of {len(names)} videos{left_out}"
