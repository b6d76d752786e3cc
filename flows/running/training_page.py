"""The page of a training in Prefect's UI, once the training is done."""

import csv
import json
import math
from pathlib import Path
from typing import Any

from stiv_model.training.run_files import INCIDENTS, LEVEL_NAMES

_SHARE = 10
"""Losses are means over the last one of so many parts of a run."""


def page(out: Path, curve: Path, levels: Path, shown: Path) -> str:
    """Return the page as Markdown: the last losses, overall and by noise level, speed, memory, time and incidents.

    Args:
        out: folder of the trained weights.
        curve: file with the losses per step (TSV).
        levels: file with the losses per step and noise level (TSV).
        shown: folder of TensorBoard's files and the validation videos.
    """
    rows, by_level = _rows(curve), _rows(levels)
    last = slice(-math.ceil(len(rows) / _SHARE), None)
    end = next(row for row in reversed(rows) if not math.isnan(row["samples_per_second"]))
    incidents = [json.loads(line) for line in (out / INCIDENTS).read_text().splitlines()]
    figures = {
        "steps": len(rows),
        f"loss, mean of the last {len(rows[last])} steps": f"{_mean(rows[last], 'loss'):.4f}",
        "samples/s": f"{end['samples_per_second']:.1f}",
        "tokens/s": f"{end['tokens_per_second']:.0f}",
        "MFU": f"{end['mfu']:.1%}",
        "peak memory of the first rank": f"{end['peak_memory_bytes'] / 1e9:.2f} GB",
        "time": f"{rows[-1]['seconds']:.0f} s",
        "steps skipped": sum("why" in one for one in incidents),
        "steps passed over": sum(math.isnan(row["learning_rate"]) for row in rows),
        "returns to a checkpoint": sum("back_to" in one for one in incidents),
    }
    noise = {name: f"{_mean(by_level[last], name):.4f}" for name in LEVEL_NAMES}
    parts = [f"# {out.name}", f"EMA weights in `{out}`, losses in `{curve}` and `{levels}`.", _table(figures)]
    parts += [f"Loss by noise level (0 is noise), mean of the last {len(rows[last])} steps:", _table(noise)]
    if incidents:
        parts.append("Incidents:\n\n" + "\n".join(f"- step {one['step']}: {_said(one)}" for one in incidents))
    videos = sorted(path.name for path in (shown / "validation").glob("step-*"))
    if videos:
        parts.append(f"Validation videos in `{shown / 'validation'}`, of {', '.join(videos)}.")
    return "\n\n".join([*parts, f"Curves: `tensorboard --logdir {shown.parent} --host 127.0.0.1`."])


def _rows(table: Path) -> list[dict[str, float]]:
    with table.open() as file:
        return [{k: float(v or "nan") for k, v in row.items()} for row in csv.DictReader(file, delimiter="\t")]


def _mean(rows: list[dict[str, float]], name: str) -> float:
    """Return the mean of what is a number; NaN where nothing is."""
    values = [row[name] for row in rows if math.isfinite(row[name])]
    return sum(values) / len(values) if values else math.nan


def _said(incident: dict[str, Any]) -> str:
    if "back_to" in incident:
        return f"went back to step {incident['back_to']}"
    return f"skipped, {incident['why']}" + (f" ({', '.join(incident['bad'])})" if incident["bad"] else "")


def _table(figures: dict[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in figures.items())])
