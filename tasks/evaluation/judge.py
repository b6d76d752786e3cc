"""Compare generated videos of shapes with their prompts: right colour, shape and direction, whether it moves, and
whether it shows one object, the same in all frames; of held-out combinations of words and of seen ones apart."""

import json
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from prefect import task

from stiv_model.errors.redaction import redacted
from tasks.demo.shapes import CHANCE, judge
from tasks.dsg import intervals
from tasks.storage import atomic, tables

log = logging.getLogger(__name__)

ATTRIBUTES = ("colour", "shape", "direction")
"""What a prompt says."""
PROPERTIES = ("moved", "one_object", "same_object")
"""What a good video has whatever its prompt says."""
COMBINATIONS = {True: "held_out", False: "seen"}
BEST_PSNR = 100.0  # dB, stands for "identical": infinity has no JSON


class Share(NamedTuple):
    """How many of how many were right, with the 95 % interval of the share."""

    right: int
    share: float
    low: float
    high: float


def wilson(right: int, total: int) -> Share:
    """Return the share `right / total` with its Wilson score interval (Wilson 1927, eq. 5).

    Raises:
        ValueError: nothing was counted, so there is no share.
    """
    if total < 1 or not 0 <= right <= total:
        raise ValueError(f"{right} right of {total}: a share needs 0 <= right <= total and total >= 1")
    low, high = intervals.wilson(np.array(right), np.array(total))
    return Share(right, right / total, float(low), float(high))


def psnr(image: np.ndarray, frame: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB of two uint8 (H, W, 3) pictures, at most `BEST_PSNR`.

    Raises:
        ValueError: they differ in size.
    """
    if image.shape != frame.shape:
        raise ValueError(
            f"the given image is {image.shape} and the generated frame {frame.shape}: make data/samples again"
        )
    error = np.mean((image.astype(np.float64) - frame.astype(np.float64)) ** 2)
    return BEST_PSNR if error == 0 else min(BEST_PSNR, 10 * math.log10(255**2 / error))


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of `samples.json`.

    Raises:
        FileNotFoundError: stage samples has not run.
    """
    path = folder / tables.SAMPLE_LIST
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run the stage that makes it (dvc repro samples)")
    return json.loads(path.read_text())["samples"]


def judge_sample(sample: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return one row: what the judge saw, which attributes are right, and the PSNR (dB) of a first frame to its image.

    A sample without a known truth is `rejected`; one that was not made, or cannot be read, is `failed`.
    """
    row = {name: sample[name] for name in ("id", "mode", "held_out")} | {"status": "ok", "reason": None}
    if sample["status"] != "ok":
        return row | {"status": "failed", "reason": "not_generated"}
    if any(sample[name] is None for name in ATTRIBUTES):
        return row | {"status": "rejected", "reason": "no_truth"}
    try:
        video = np.load(folder / sample["file"], allow_pickle=False)
    except (OSError, ValueError) as error:
        log.warning("%s: %s", folder / sample["file"], error)
        return row | {"status": "failed", "reason": "unreadable"}
    seen = judge(video)
    row["seen"] = {name: getattr(seen, name) for name in ATTRIBUTES}
    row["right"] = {name: row["seen"][name] == sample[name] for name in ATTRIBUTES}
    row |= {"moved": seen.moved, "one_object": seen.is_one_object, "same_object": seen.is_same_object}
    row |= {"concentration": round(seen.concentration, 4), "continuity": round(seen.continuity, 4)}
    if sample["mode"] == "ti2v":
        row["psnr"] = psnr(read_image(folder / sample["image"]), video[0])
    return row


def read_image(path: Path) -> np.ndarray:
    """Return a picture as uint8 (H, W, 3) RGB.

    Raises:
        FileNotFoundError: it is not there, or is no picture.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(f"{path} is missing or no picture: make data/samples again (dvc repro -f samples)")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of judged rows. What the judge did not see counts as wrong."""
    figures: dict[str, Any] = {"n": len(rows), "unseen": sum(row["seen"]["colour"] is None for row in rows)}
    for name in PROPERTIES:
        figures[name] = wilson(sum(row[name] for row in rows), len(rows))._asdict()
    for name in ATTRIBUTES:
        accuracy = wilson(sum(row["right"][name] for row in rows), len(rows))
        figures[name] = accuracy._asdict() | {
            "chance": CHANCE[name],
            "above_chance": accuracy.low > CHANCE[name],
        }
    if all("psnr" in row for row in rows):
        figures["first_frame_psnr"] = float(np.mean([row["psnr"] for row in rows]))
    return figures


def judge_all(samples: Path) -> dict[str, Any]:
    """Judge the folder `samples` and return the content of reports/judge.json.

    Raises:
        FileNotFoundError: no samples.json.
        ValueError: no sample could be judged.
    """
    listed = read_samples(samples)
    rows = [judge_sample(sample, samples) for sample in listed]
    account = tables.reconcile("samples", [sample["id"] for sample in listed], rows, key="id")
    judged = tables.ok(rows)
    if not judged:
        raise ValueError(f"none of {account.given} samples in {samples} could be judged ({account.reasons})")
    log.info("judged %s of %s samples", account.ok, account.given)
    modes = dict.fromkeys(row["mode"] for row in judged)
    return {
        "samples": {key: value for key, value in account._asdict().items() if key != "unit"},
        "modes": {mode: by_combinations([row for row in judged if row["mode"] == mode]) for mode in modes},
        "verdicts": rows,
    }


def by_combinations(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the figures of one mode's judged rows, of held-out combinations and of seen ones, where it has such."""
    found = {name: [row for row in rows if row["held_out"] == held_out] for held_out, name in COMBINATIONS.items()}
    return {name: summarise(these) for name, these in found.items() if these}


def table(judgement: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| mode | combinations | figure | right | of | share | 95 % interval | chance | above chance |"]
    lines.append("|---|---|---|---:|---:|---:|---:|---:|---|")
    for mode, combinations, figures in lines_of(judgement):
        for name in ATTRIBUTES + PROPERTIES:
            value = figures[name]
            chance = "|"
            if "chance" in value:
                chance = f"{value['chance']:.1%} | {'yes' if value['above_chance'] else 'no'}"
            lines.append(
                f"| {mode} | {combinations} | {name} | {value['right']} | {figures['n']} | {value['share']:.1%} "
                f"| {value['low']:.1%} to {value['high']:.1%} | {chance} |"
            )
    return "\n".join(lines) + "\n"


def lines_of(judgement: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return mode, combinations and figures of every group that was judged."""
    return [
        (mode, combinations, figures)
        for mode, groups in judgement["modes"].items()
        for combinations, figures in groups.items()
    ]


@task(task_run_name="judge {samples}")
@redacted
def judge_samples(samples: Path, out: Path) -> str:
    """Write the figures of all samples and each one's row to `out` (JSON); return the figures as a Markdown table.

    Args:
        samples: folder of stage samples.

    Raises:
        FileNotFoundError: stage samples has not run, or an image is missing.
        ValueError: no sample could be judged.
    """
    judgement = judge_all(samples)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_write(out) as tmp_path:
        tmp_path.write_text(json.dumps(judgement, indent=2) + "\n")
    return table(judgement)
