"""The judge's figures over a training, from its validation videos: whether one sees it learn."""

import csv
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from prefect import task

from stiv_model.encoders.video_file import read_video
from stiv_model.errors.redaction import redacted
from stiv_model.monitoring import validation_files
from tasks.demo.shapes import Combination, judge, said
from tasks.storage import atomic

log = logging.getLogger(__name__)


FIGURES = ("colour", "shape", "direction", "one_object", "same_object")
COLUMNS = ("recipe", "step", "n", *FIGURES)
"""Step is of the recipe, counted from 1; n is how many videos were judged, the figures how many of them are right; a
single frame has no direction and no other frame to be the same in: empty."""


def judge_step(folder: Path, recipe: str) -> dict[str, Any] | None:
    """Return one row of `COLUMNS`; None where no prompt says of one shape which colour and direction it has.

    Raises:
        OSError, ValueError: a file is not what validation writes.
    """
    prompts = json.loads((folder / validation_files.PROMPTS).read_text())
    asked = {number: words for number, prompt in enumerate(prompts) if (words := said(prompt)) is not None}
    if not asked:
        return None
    found = [_figures(read_prompt_video(folder, number), words) for number, words in asked.items()]
    row = {"recipe": recipe, "step": int(folder.name.rpartition("-")[2]), "n": len(found)}
    return row | {name: sum(one[name] for one in found) for name in found[0]}


def read_prompt_video(folder: Path, number: int) -> np.ndarray:
    """Return the validation video of a prompt, uint8 RGB (T, H, W, 3); T is 1 where the recipe makes single frames.

    Raises:
        OSError, ValueError: it is missing, or no such file.
    """
    picture = folder / f"prompt-{number}.png"
    if not picture.exists():
        return read_video(folder / f"prompt-{number}.mp4")
    frame = cv2.imread(str(picture), cv2.IMREAD_COLOR)
    if frame is None:
        raise ValueError(f"{picture} is no picture")
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)[None]


def _figures(video: np.ndarray, asked: Combination) -> dict[str, bool]:
    seen = judge(video)
    figures = {"colour": seen.colour == asked.colour, "shape": seen.shape == asked.shape}
    if len(video) == 1:
        return figures | {"one_object": seen.is_one_object}
    figures["direction"] = seen.direction == asked.direction
    return figures | {"one_object": seen.is_one_object, "same_object": seen.is_same_object}


def judge_steps(shown: Path, recipes: Iterable[str]) -> list[dict[str, Any]]:
    """Return a row per validation of each recipe, in the order of training.

    These files are outside DVC: one that is missing, of an earlier version, which says no prompts, or unreadable is
    passed over with a warning.
    """
    rows = []
    for recipe in recipes:
        for folder in sorted((shown / recipe / validation_files.FOLDER).glob(validation_files.STEPS)):
            try:
                row = judge_step(folder, recipe)
            except (OSError, ValueError, av.FFmpegError) as error:
                log.warning("the validation in %s is not judged: %s", folder, error)
                continue
            rows += [row] if row else []
    return rows


@task(task_run_name="judge validations in {shown}")
@redacted
def judge_validations(shown: Path, recipes: Sequence[str], out: Path) -> None:
    """Write what the judge finds in the validation videos of all recipes to `out`, a table of `COLUMNS`.

    Args:
        shown: folder with what each training shows, `reports/training`.
    """
    rows = judge_steps(shown, recipes)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_write(out) as tmp_path, tmp_path.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    log.info("judged %d validations", len(rows))
