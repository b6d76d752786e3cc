"""Units of `benchmarks.recipe`: one arm of one comparison with one seed, its stages, and its result on the disk.

A result is written whole or not at all, and is of use as long as nothing that decides about it has changed.
"""

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import recipe_data
from benchmarks.recipe_comparisons import Arm, comparisons
from benchmarks.recipe_figures import figures
from benchmarks.recipe_settings import GFLOP_PER_SECOND, Kind, Size, Stage
from benchmarks.recipe_training import RECORD, folder_of, identity, record_of, train
from tasks.storage import atomic

ROOT = Path(".cache/recipe")
"""Clips, weights and contact sheets: all of it can be made again."""
RESULTS = Path("benchmarks/results/recipe")
_LOOK_SECONDS = {"t2v": 0.23, "ti2v": 0.23, "tup": 0.23, "refilled": 0.35, "words": 0.05}
"""CPU seconds of a look per prompt, measured, for what is told beforehand."""


class Unit(NamedTuple):
    """One arm of one comparison with one seed."""

    letter: str
    arm: Arm
    seed: int
    size: Size

    @property
    def file(self) -> str:
        """Return the name of its result."""
        plain = "".join(letter if letter.isalnum() else "-" for letter in self.arm.name)
        return f"{self.letter}-{plain}-{self.seed}.json"

    @property
    def settings_sha256(self) -> str:
        """Return the hash of all that decides about its result but the seed and the code."""
        looks = {name: look._asdict() for name, look in self.arm.looks.items()}
        return hashlib.sha256(json.dumps([identity(self.arm.stage), looks], sort_keys=True).encode()).hexdigest()[:16]

    @property
    def estimated_seconds(self) -> float:
        """Return the CPU seconds of its looks."""
        prompts = ((look.how, min(look.prompts, self.size.held_out)) for look in self.arm.looks.values())
        return sum(_LOOK_SECONDS[how] * count for how, count in prompts)

    def result(self, results: Path) -> dict[str, Any] | None:
        """Return its result; None where there is none, or one of other settings."""
        path = results / self.file
        found = json.loads(path.read_text()) if path.exists() else None
        return found if found and found["settings"] == self.settings_sha256 else None


class Job(NamedTuple):
    """Something that one process does: make clips, train a stage, or look at a trained one."""

    name: str
    makes: Path
    """There when it is done."""
    needs: tuple[Path, ...]
    """Without which it cannot begin."""
    call: Callable[..., None]
    arguments: tuple[Any, ...]


def units(size: Size, seeds: int, only: str) -> list[Unit]:
    """Return the units of the comparisons whose letters are in `only`, cheap comparisons first, then seed by seed."""
    chosen = [one for letter, one in comparisons(size).items() if letter in only]
    cost = {one.letter: sum({arm.stage: arm.stage.gflop for arm in one.arms}.values()) for one in chosen}
    return [
        Unit(one.letter, arm, seed, size)
        for one in sorted(chosen, key=lambda one: cost[one.letter])
        for seed in range(seeds)
        for arm in one.arms
    ]


def estimated_seconds(stage: Stage) -> float:
    """Return the CPU seconds that a stage's arithmetic would take; with masks or 32 pixels it takes up to half more."""
    return stage.gflop / GFLOP_PER_SECOND


def run(some: list[Unit], jobs: int, root: Path, results: Path) -> Iterator[str]:
    """Do what is missing of the units and yield a line for each thing done.

    So many processes do it at a time; 1 is this one. What comes out does not depend on it. What a job raises ends all,
    once the others that run then are finished.
    """
    for folder in (root / "stages", results):
        folder.mkdir(parents=True, exist_ok=True)
    todo = missing(some, root, results)
    if jobs == 1:
        torch.set_num_threads(1)
        for job in todo:
            yield f"{job.name}: {_timed(job.call, job.arguments):.1f} s"
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        running: dict[Future[float], Job] = {}
        while todo or running:
            ready = [job for job in todo if all(path.exists() for path in job.needs)][: jobs - len(running)]
            todo = [job for job in todo if job not in ready]
            running |= {pool.submit(_timed, job.call, job.arguments): job for job in ready}
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield f"{running.pop(future).name}: {future.result():.1f} s"


def missing(some: list[Unit], root: Path, results: Path) -> list[Job]:
    """Return what is to be done, in an order in which each thing stands after those that it needs."""
    jobs: dict[Path, Job] = {}
    for unit in some:
        if unit.result(results) is None:
            stages = list(unit.arm.stage.ancestors())
            made = [*(_clips_job(kind, unit.size, root) for kind in dict.fromkeys(stage.kind for stage in stages))]
            made += [_captions_job(unit.size, root), *(_stage_job(stage, unit.seed, root) for stage in stages)]
            jobs |= {job.makes: job for job in made if not job.makes.exists() and job.makes not in jobs}
            jobs[results / unit.file] = _unit_job(unit, root, results)
    return list(jobs.values())


def _clips_job(kind: Kind, size: Size, root: Path) -> Job:
    path = recipe_data.clips_path(root, kind, size)
    return Job(f"clips, {kind}", path, (), recipe_data.make_clips, (kind, size, path))


def _captions_job(size: Size, root: Path) -> Job:
    path = recipe_data.captions_path(root, size)
    return Job("captions", path, (), recipe_data.make_captions, (size, path))


def _stage_job(stage: Stage, seed: int, root: Path) -> Job:
    before = (folder_of(root, parent, seed) / RECORD for parent in (stage.parent, stage.temporal_parent) if parent)
    data = recipe_data.clips_path(root, stage.kind, stage.size), recipe_data.captions_path(root, stage.size)
    makes = folder_of(root, stage, seed) / RECORD
    return Job(f"{stage.name}, seed {seed}", makes, (*data, *before), train, (root, stage, seed))


def _unit_job(unit: Unit, root: Path, results: Path) -> Job:
    stages = list(unit.arm.stage.ancestors())
    needs = {recipe_data.clips_path(root, stages[-1].kind, unit.size), recipe_data.captions_path(root, unit.size)}
    needs |= {folder_of(root, stage, unit.seed) / RECORD for stage in stages}
    name = f"({unit.letter}) {unit.arm.name}, seed {unit.seed}"
    return Job(name, results / unit.file, tuple(needs), write_result, (unit, root, results, commit()))


def _timed(call: Callable[..., None], arguments: tuple[Any, ...]) -> float:
    began = time.process_time()
    call(*arguments)
    return time.process_time() - began


def write_result(unit: Unit, root: Path, results: Path, made_by: str) -> None:
    """Look at the trained stage of a unit and write its result.

    Args:
        unit: whose stages are trained.
        root: where they are.
        results: gets the file.
        made_by: the commit of the code.
    """
    began, stage = time.process_time(), unit.arm.stage
    sheets = root / "sheets" / unit.file.removesuffix(".json")
    found = {
        name: figures(root, stage, unit.seed, look, sheets / f"{name.replace(' ', '-')}.png")
        for name, look in unit.arm.looks.items()
    }
    stages = [
        {"name": one.name} | {key: value for key, value in record_of(root, one, unit.seed).items() if key != "losses"}
        for one in stage.ancestors()
    ]
    result = {
        **{"comparison": unit.letter, "arm": unit.arm.name, "seed": unit.seed},
        **{"settings": unit.settings_sha256, "commit": made_by, "figures": found, "stages": stages},
        "losses": record_of(root, stage, unit.seed)["losses"],
        "look_seconds": round(time.process_time() - began, 1),
    }
    with atomic.atomic_write(results / unit.file) as tmp_path:
        tmp_path.write_text(json.dumps(result, indent=1) + "\n")


@cache
def commit() -> str:
    """Return the commit of the code, with a plus where files that Git knows differ from it."""
    asked = ("rev-parse --short=12 HEAD", "status --porcelain --untracked-files=no")
    answers = [
        subprocess.run(["git", *words.split()], capture_output=True, text=True, check=True).stdout.strip()
        for words in asked
    ]
    return answers[0] + ("+" if answers[1] else "")
