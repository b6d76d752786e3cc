"""The model that comes with the package beside that of a run: first samples, figures and time of training of both."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tasks.pages.data_uris import data_uri
from tasks.storage import tables

SAMPLES = "samples"
"""Folder in that of the model: its first samples, as stage samples wrote them, their rows with the judge's verdicts."""
JUDGEMENT = "judge.json"
"""File in it: the judge's figures, by mode and combinations."""
TIMES = "stage_times.json"
"""File in it: what its run took, per stage and training."""

SHOWN = 6
"""How many samples are shown of each mode, of either model."""


class Pair(NamedTuple):
    """A sample of this run and one of the shipped model, of the same combination of words where there is one."""

    own: dict[str, Any]
    shipped: dict[str, Any]

    @property
    def is_same_prompt(self) -> bool:
        """Whether the words are the same."""
        return bool(self.own["prompt"] == self.shipped["prompt"])

    @property
    def is_same_scene(self) -> bool:
        """Whether both are to show the same colour, shape and direction."""
        return _scene(self.own) == _scene(self.shipped)


class Comparison(NamedTuple):
    """What the page shows of the shipped model beside this run's."""

    own_seconds: float
    """Of training, all recipes together."""
    shipped_seconds: float
    pairs: dict[str, list[Pair]]
    """By mode; samples of held-out combinations alone."""
    figures: list[dict[str, Any]]
    """Of both models, mode by mode: mode, model, and the judge's figures of held-out combinations."""


def compare(
    folder: Path, samples: list[dict[str, Any]], judgement: dict[str, Any], trained: Mapping[str, tuple[int, float]]
) -> Comparison | None:
    """Put the samples of this run beside those of the shipped model.

    Args:
        folder: of the shipped model.
        samples: of this run, as the page shows them.
        judgement: the judge's figures of this run, as `judgement.read` returns them.
        trained: steps and seconds of each of its trainings.

    Returns:
        None where the shipped model was trained by as many steps: the two are of the same training.
    Raises:
        FileNotFoundError: the folder lacks something; the message names it.
    """
    took = _read(folder / TIMES)["trained"]
    if {name: training["steps"] for name, training in took.items()} == {
        name: steps for name, (steps, _) in trained.items()
    }:
        return None
    theirs = _samples(folder / SAMPLES)
    modes = [mode for mode in dict.fromkeys(row["mode"] for row in theirs) if mode in judgement["modes"]]
    figures = _read(folder / JUDGEMENT)["modes"]
    return Comparison(
        sum(seconds for _, seconds in trained.values()),
        sum(training["seconds"] for training in took.values()),
        {
            mode: _pairs([row for row in samples if _is_of(row, mode)], [r for r in theirs if _is_of(r, mode)])
            for mode in modes
        },
        [
            {"mode": mode, "model": model, "figures": found[mode]["held_out"]}
            for mode in modes
            for model, found in (("this run", judgement["modes"]), ("shipped", figures))
        ],
    )


def _is_of(row: dict[str, Any], mode: str) -> bool:
    return row["mode"] == mode and bool(row["held_out"]) and row["status"] == "ok"


def _scene(sample: dict[str, Any]) -> tuple[str, ...]:
    return sample["colour"], sample["shape"], sample["direction"]


def _pairs(own: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[Pair]:
    """Pair the first of the shipped model's samples: each with the first of this run's that is to show the same scene.

    Where there is none, with the first that is left.
    """
    left, same = list(own), {}
    for row in theirs[:SHOWN]:
        found = next((one for one in left if _scene(one) == _scene(row)), None)
        if found:
            left.remove(found)
            same[row["id"]] = found
    others = iter(left)
    pairs = [(same.get(row["id"]) or next(others, None), row) for row in theirs[:SHOWN]]
    return [Pair(one, row) for one, row in pairs if one]


def _samples(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the shipped samples as the page shows samples: with their files as data URIs."""
    rows = _read(folder / tables.SAMPLE_LIST)["samples"]
    for row in rows:
        for key, kind in (("video", "video/mp4"), ("image", "image/png")):
            row[f"{key}_uri"] = data_uri(kind, _require(folder / row[key]).read_bytes()) if row[key] else None
        row["verdict"] = row["verdict"] or {}
    return rows


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_require(path).read_text())
    return content


def _require(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"the report needs {path}, of the model that comes with the package: git checkout it")
    return path
