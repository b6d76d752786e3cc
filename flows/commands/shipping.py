"""The model of a whole run as one folder that diffusers opens, with its first samples, its figures and what it took."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from flows.commands import time_left
from flows.params import load_params
from flows.running import stage_names
from tasks.evaluation import judgement
from tasks.pages.shipped import JUDGEMENT, SAMPLES, TIMES
from tasks.storage import atomic, tables

PACKED = {"t2v": 12, "ti2v": 12}
"""How many samples of held-out combinations are packed, of each mode: the first ones."""
_KEPT = ("id", "mode", "held_out", "prompt", "colour", "shape", "direction", "status", "video", "image")
"""What is kept of a sample's row."""


def refuse_others(out: Path) -> None:
    """Fail at the door where something stands that `pack` did not make and would replace.

    Raises:
        ValueError: it does.
    """
    if out.exists() and not (out / TIMES).is_file():
        raise ValueError(f"{out} is there and was not made by stiv learn: move it away; nothing was touched")


def pack(out: Path) -> int:
    """Write the model of this workspace with its samples and figures to a folder, in the place of an earlier one.

    Returns:
        its bytes.
    Raises:
        FileNotFoundError: a stage has not run.
        ValueError: something else stands there.
    """
    from flows.commands.export import export  # torch: seconds that the command need not wait at its start

    refuse_others(out)
    params = load_params()
    samples, (card, _) = Path(stage_names.outputs("samples")[0]), stage_names.metrics("evaluate")
    made, judged = json.loads((samples / tables.SAMPLE_LIST).read_text()), judgement.read(Path(card))
    settings = params.sampler, params.vae, params.text, params.latents
    with atomic.scratch(out) as aside:
        product = aside / out.name
        with contextlib.redirect_stdout(None):  # it prints where the folder is, which is moved from there
            export(
                product,
                *settings,
                Path(made["checkpoint"]),
                text_encoder="named",
                figures=Path(card),
                licence="apache-2.0",
            )
        _pack_samples(made, judged["verdicts"], samples, product / SAMPLES)
        figures = {name: value for name, value in judged.items() if name != "verdicts"}
        (product / JUDGEMENT).write_text(json.dumps(figures, indent=2) + "\n")
        (product / TIMES).write_text(json.dumps(time_left.record(), indent=2) + "\n")
        atomic.finish(product, out)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())


def _pack_samples(made: dict[str, Any], verdicts: list[dict[str, Any]], folder: Path, out: Path) -> None:
    """Copy the first samples of each mode, with the picture that was given, and list them with the judge's verdicts."""
    found = {row["id"]: row for row in verdicts}
    rows = [
        {name: sample[name] for name in _KEPT} | {"verdict": found.get(sample["id"])}
        for mode, count in PACKED.items()
        for sample in [one for one in made["samples"] if one["mode"] == mode and one["held_out"]][:count]
    ]
    out.mkdir()
    for row in rows:
        for name in filter(None, (row["video"], row["image"])):
            shutil.copyfile(folder / name, out / name)
    content = made | {"samples": rows}
    (out / tables.SAMPLE_LIST).write_text(json.dumps(content, indent=2) + "\n")
