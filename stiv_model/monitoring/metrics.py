"""What a run writes down, on its first rank: a line per step that a killed run takes up where its checkpoint stands.

losses.tsv is the curve; noise_levels.tsv the loss by noise level; ledger.tsv which samples each step saw;
incidents.jsonl the steps that were not taken, and why: of it nothing is ever taken back.
"""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from stiv_model.training.run_files import INCIDENTS, LEDGER, LEVEL_NAMES, LOSSES, NOISE_LEVEL_LOSSES, NOISE_LEVELS
from stiv_model.weights import durable

log = logging.getLogger(__name__)

_BAR = 20
_COLUMNS = {
    LOSSES: (
        *("step", "loss", "gradient_norm", "learning_rate"),
        *("samples_per_second", "tokens_per_second", "mfu", "peak_memory_bytes", "seconds"),
    ),
    NOISE_LEVEL_LOSSES: ("step", *LEVEL_NAMES),
    LEDGER: ("step", "first_position", "last_position", "clips_sha256"),
}


class Speed(NamedTuple):
    """What one sample is worth, to say how fast a run is."""

    tokens: int
    flops: int
    """Executed by a training step, per sample."""
    peak_flops_per_second: float
    """Measured matrix products, all ranks together."""


class Records:
    """The files of one run.

    Args:
        work: folder of the run.
        done: steps that are in the checkpoint it goes on from; later lines are of steps that will be done again.
        steps: of the recipe.
        batch: samples per step.
        speed: for the line of progress.
    """

    def __init__(self, work: Path, done: int, steps: int, batch: int, speed: Speed):
        self.work, self.steps, self.batch, self.speed = work, steps, batch, speed
        self.incidents = _open_lines(work / INCIDENTS)
        self.noted = set((work / INCIDENTS).read_text(errors="replace").splitlines())
        self.tables: dict[str, TextIO] = {}
        for name in (LOSSES, NOISE_LEVEL_LOSSES, LEDGER):
            rows, lost = _rows(work / name, len(_COLUMNS[name]), done)
            if lost:
                self.incident(done, lost_rows=len(lost), of=name, first=lost[0], last=lost[-1])
                rows |= {step: self._lost(name, step) for step in lost}
            _replace(work / name, ["\t".join(_COLUMNS[name]), *(rows[step] for step in range(1, done + 1))])
            self.tables[name] = (work / name).open("a", buffering=1)
        seconds = [float(row.split("\t")[-1]) for row in (work / LOSSES).read_text().splitlines()[1:]]
        self.before = max((one for one in seconds if math.isfinite(one)), default=0.0)
        self.started = self.said = time.monotonic()
        self.taken = 0

    def step(
        self,
        step: int,
        loss: float,
        gradient_norm: float,
        learning_rate: float,
        levels: Sequence[float],
        peak_memory_bytes: int,
    ) -> dict[str, float]:
        """Write down a step that was tried, and return all that is worth a curve, by name.

        Args:
            step: counted from 1.
            loss: mean over the samples of the step.
            gradient_norm: before clipping.
            learning_rate: of this step.
            levels: mean losses per noise level, NaN where there is none.
            peak_memory_bytes: of this rank, up to now.
        """
        self.taken += 1
        passed = time.monotonic() - self.started
        speed = self.taken * self.batch / passed
        figures = {
            "loss": loss,
            "gradient norm": gradient_norm,
            "learning rate": learning_rate,
            "speed/samples per second": speed,
            "speed/tokens per second": speed * self.speed.tokens,
            "speed/MFU": speed * self.speed.flops / self.speed.peak_flops_per_second,
        }
        numbers = (f"{x:.9g}" for x in figures.values())
        self._add(LOSSES, step, (*numbers, str(peak_memory_bytes), f"{self.before + passed:.9g}"))
        self._add(NOISE_LEVEL_LOSSES, step, ("" if level != level else f"{level:.6g}" for level in levels))
        figures["peak memory (GB)"] = peak_memory_bytes / 1e9
        if time.monotonic() - self.said > 5 or step == self.steps:
            self.said = time.monotonic()
            log.info("%s", self._line(step, figures))
        return figures | {f"loss by noise level/{name}": level for name, level in zip(LEVEL_NAMES, levels, strict=True)}

    def _line(self, step: int, figures: dict[str, float]) -> str:
        done = step * _BAR // self.steps
        seconds = (self.steps - step) * self.batch / figures["speed/samples per second"]
        return (
            f"[{'#' * done}{'.' * (_BAR - done)}] step {step} of {self.steps}  loss {figures['loss']:.4f}  "
            f"gradient norm {figures['gradient norm']:.2f}  {figures['speed/samples per second']:.0f} samples/s  "
            f"{figures['speed/tokens per second']:.0f} tokens/s  MFU {figures['speed/MFU']:.0%}  "
            f"{figures['peak memory (GB)']:.1f} GB  {seconds:.0f} s left"
        )

    def pass_over(self, step: int) -> None:
        """Write down a step that is not tried again."""
        seconds = self.before + time.monotonic() - self.started
        self._add(LOSSES, step, (*["nan"] * (len(_COLUMNS[LOSSES]) - 2), f"{seconds:.6g}"))
        self._add(NOISE_LEVEL_LOSSES, step, [""] * NOISE_LEVELS)
        self._add(LEDGER, step, ("", "", "passed over"))

    def samples(self, step: int, first: int, clips: Sequence[str]) -> None:
        """Write down the samples that a step saw, on all ranks: their positions, and a hash of their names."""
        digest = hashlib.sha256("\n".join(clips).encode()).hexdigest()
        self._add(LEDGER, step, (str(first), str(first + len(clips) - 1), digest))

    def incident(self, step: int, **what: Any) -> None:
        """Write down a step that was not taken, or a return to a checkpoint; once, however often it comes by."""
        log.warning("step %d: %s", step, ", ".join(f"{key} {value}" for key, value in what.items()))
        line = json.dumps({"step": step} | what)
        if line not in self.noted:
            self.noted.add(line)
            self.incidents.write(f"{line}\n")

    def sync(self) -> None:
        """Put on the disk what was written down: a checkpoint that will be there after a power loss finds its lines."""
        for file in (*self.tables.values(), self.incidents):
            file.flush()
            os.fsync(file.fileno())
        durable.sync(self.work)

    def _lost(self, name: str, step: int) -> str:
        """Return the row of a step of which no row is left: its positions are known, its figures are not."""
        first = (step - 1) * self.batch
        known = (str(first), str(first + self.batch - 1), "lost") if name == LEDGER else ()
        empty = "" if name == NOISE_LEVEL_LOSSES else "nan"
        return "\t".join([str(step), *known, *[empty] * (len(_COLUMNS[name]) - 1 - len(known))])

    def close(self) -> None:
        """Close the files."""
        for file in (*self.tables.values(), self.incidents):
            file.close()

    def _add(self, name: str, step: int, values: Any) -> None:
        self.tables[name].write("\t".join([str(step), *values]) + "\n")


def _rows(path: Path, columns: int, done: int) -> tuple[dict[int, str], list[int]]:
    """Return the whole rows of the first steps of a table, by step, and the steps of which there is none."""
    found: dict[int, str] = {}
    for line in path.read_text(errors="replace").split("\n")[1:-1] if path.exists() else []:
        step, *others = line.split("\t")
        if step.isdecimal() and len(others) == columns - 1 and "\0" not in line:
            found[int(step)] = line
    return found, [step for step in range(1, done + 1) if step not in found]


def _open_lines(path: Path) -> TextIO:
    """Open a file of JSON lines for more of them, without those that a power loss tore."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    whole = [line for line in lines if _is_json(line)]
    if len(whole) < len(lines):
        log.warning("%s: %d of %d lines are torn, and left out", path, len(lines) - len(whole), len(lines))
        _replace(path, whole)
    return path.open("a", buffering=1)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _replace(path: Path, lines: Sequence[str]) -> None:
    """Write a file anew, durably and at once: a kill between emptying and writing would lose the lines."""
    tmp_path = path.with_name(f"{path.name}.tmp")
    with tmp_path.open("w") as file:
        file.writelines(f"{line}\n" for line in lines)
    durable.sync(tmp_path)
    tmp_path.replace(path)
    durable.sync(path.parent)
