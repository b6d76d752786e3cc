"""Stage views_table: views of held-out objects, how near they are to the true ones, and beside what that is to be seen.

`OUT/views.json` has every figure, `OUT/views.md` the table for people, `OUT/views.png` the objects: a line of true
views, below it one of made ones.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stiv_model.diffusion.cameras import CAMERAS
from stiv_model.pipeline.pipeline import StivPipeline
from tasks.generation.settings import SampleSettings
from tasks.storage import atomic
from tasks.views import evaluate
from tasks.views.evaluate import METRICS, PAPER, Objects, Row

_FIGURES, _TABLE, _SHEET = "views.json", "views.md", "views.png"
_MADE = "made"
_SHOWN = 12  # objects on the sheet
_DIGITS = {"psnr": 2, "ssim": 3, "lpips": 3}
_WAYS = {
    _MADE: "made by the model",
    "repeated": "the given view, repeated",
    "nearest": "views of the training's object whose given view is nearest",
    "coded": "the true views through the VAE and back",
}


def measure(
    pipeline: StivPipeline, held_out: Objects, nearest: np.ndarray, batch: int, samples: SampleSettings, out: Path
) -> Row:
    """Write the table of a model and its sheet; return the model's figures.

    Args:
        held_out: objects that the training never had.
        nearest: of each the views of that object of the training whose given view is most like its own, uint8 RGB
            (N, V, H, W, 3).
        batch: pictures that the VAE codes at once.
        samples: how views are made; `seed` is that of the first object, those after it have the next ones.
        out: folder, which is whole or absent.
    """
    given, truth = held_out.pictures[:, 0], held_out.pictures[:, 1:]
    ways = {
        _MADE: evaluate.made_by(pipeline, given, samples),
        "repeated": np.repeat(given[:, None], len(CAMERAS), 1),
        "nearest": nearest,
        "coded": evaluate.coded(pipeline, truth, batch),
    }
    rows = evaluate.rows_of(truth, ways)
    work = atomic.open_workdir(out, {"objects": held_out.names, "samples": samples.model_dump(mode="json")})
    product = work / "product"
    product.mkdir(exist_ok=True)
    (product / _FIGURES).write_text(json.dumps(_figures(rows, held_out, samples), indent=1) + "\n")
    (product / _TABLE).write_text(_table(rows, held_out))
    sheet = evaluate.sheet(given[:_SHOWN], [truth, ways[_MADE]])
    Image.fromarray(sheet).save(product / _SHEET)
    atomic.finish(product, out)
    atomic.discard_workdir(out)
    return rows[0]


def told(row: Row) -> str:
    """Return the mean of a row in words, beside the paper's."""
    found = ", ".join(f"{name.upper()} {row.mean[name]:.{_DIGITS[name]}f}" for name in METRICS)
    paper = " / ".join(f"{PAPER[name]:g}" for name in METRICS)
    return f"views of held-out objects: {found} (the paper, of other objects: {paper})"


def _figures(rows: list[Row], objects: Objects, samples: SampleSettings) -> dict[str, Any]:
    return {
        "objects": objects.account._asdict(),
        "guidance_scale": samples.views_guidance_scale,
        "steps": samples.views_steps,
        "cameras": [camera._asdict() for camera in CAMERAS],
        "ways": {row.name: {"mean": row.mean, "views": row.values} for row in rows},
        "paper": PAPER,
    }


def _table(rows: list[Row], objects: Objects) -> str:
    cameras = [f"{camera.elevation:+g}, {camera.azimuth:g}" for camera in CAMERAS]
    lines = [
        "# Views of held-out objects",
        "",
        f"{objects.account.given} objects: {objects.account.ok} measured, {objects.account.rejected} rejected, "
        f"{objects.account.failed} failed. Means over objects; a column a camera: elevation, azimuth in degrees.",
        "",
        "The paper's row is of Google Scanned Objects, in other pictures: it is no target that these could be held to.",
    ]
    for name in METRICS:
        digits = _DIGITS[name]
        better = "lower" if name == "lpips" else "higher"
        lines += ["", f"## {name.upper()} ({better} is better)", "", f"| | mean | {' | '.join(cameras)} |"]
        lines.append(f"|---|{'---|' * (1 + len(CAMERAS))}")
        for row in rows:
            cells = [f"{value:.{digits}f}" for value in (row.mean[name], *row.values[name])]
            lines.append(f"| {_WAYS[row.name]} | {' | '.join(cells)} |")
        lines.append(f"| STIV-TI2V-XL in the paper | {PAPER[name]:g} |{' |' * len(CAMERAS)}")
    return "\n".join(lines) + "\n"
