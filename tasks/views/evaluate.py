"""How good the views of held-out objects are, by PSNR, SSIM and LPIPS of each, beside what costs no model.

Shapes: N objects, V views, H height, W width.
"""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stiv_model.diffusion.cameras import FRAMES, GIVEN_FRAMES
from stiv_model.encoders.pixels import to_pixels
from stiv_model.encoders.vae import decode, encode
from stiv_model.metrics import fidelity, lpips
from stiv_model.pipeline.pipeline import StivPipeline
from tasks.generation.settings import SampleSettings
from tasks.generation.videos import make_videos
from tasks.sandbox.pool import Sandbox
from tasks.storage.tables import Account, reconcile
from tasks.views import folders
from tasks.views.encode import read_object
from tasks.views.folders import PICTURES, Refused

METRICS = ("psnr", "ssim", "lpips")
PAPER = {"psnr": 21.643, "ssim": 0.724, "lpips": 0.156}
"""Of STIV-TI2V-XL on Google Scanned Objects (paper, section 5), another set of objects, in pictures of another size."""
_AT_ONCE = 16  # objects


class Objects(NamedTuple):
    """Objects that are ok, with the account of all."""

    names: list[str]
    pictures: np.ndarray
    """uint8 RGB (N, 1 + V, H, W, 3), the given view first."""
    account: Account


class Row(NamedTuple):
    """Of one way to make views: of each view (V,), the mean over objects of each metric."""

    name: str
    values: dict[str, list[float]]

    @property
    def mean(self) -> dict[str, float]:
        """Over views."""
        return {metric: float(np.mean(values)) for metric, values in self.values.items()}


def read(folder: Path, sandbox: Sandbox, height: int, width: int) -> Objects:
    """Return the objects of a folder, opened in the sandbox.

    Raises:
        FileNotFoundError, ValueError: there are none, or none is ok.
    """
    names, rows = [], []
    pictures: list[np.ndarray] = []
    for name in folders.objects(folder):
        row: dict[str, Any] = {"name": name, "status": "ok", "reason": None}
        try:
            found, _ = read_object(folder / name, sandbox, height, width)
            pictures.append(found)
            names.append(name)
        except Refused as refused:
            row |= {"status": refused.status, "reason": refused.reason}
        rows.append(row)
    account = reconcile("objects", [row["name"] for row in rows], rows, "name")
    if not names:
        raise ValueError(f"none of {len(rows)} objects in {folder} is usable ({account.reasons})")
    return Objects(names, np.stack(pictures), account)


def made_by(pipeline: StivPipeline, given: np.ndarray, settings: SampleSettings) -> np.ndarray:
    """Return the views that a model makes, uint8 RGB (N, V, H, W, 3), of given ones, uint8 RGB (N, H, W, 3)."""
    asked = {
        "num_frames": FRAMES,
        "stride_frames": 1,
        "guidance": "joint",
        "guidance_scale": settings.views_guidance_scale,
        "num_inference_steps": settings.views_steps,
    }
    made: list[np.ndarray] = []
    for first in range(0, len(given), _AT_ONCE):
        sources = [np.repeat(view[None], FRAMES, 0) for view in given[first : first + _AT_ONCE]]
        seeds = list(range(settings.seed + first, settings.seed + first + len(sources)))
        made += make_videos(pipeline, [""] * len(sources), seeds, "views", sources, asked)
    return np.stack(made)[:, GIVEN_FRAMES:]


def nearest(given: np.ndarray, folder: Path, sandbox: Sandbox) -> np.ndarray:
    """Return the views of the objects of a folder, uint8 RGB (N, V, H, W, 3), whose given view is most like each one.

    Of an object its given view alone is opened, and the others where they are wanted; one that is not ok is passed
    over.

    Args:
        given: uint8 RGB (N, H, W, 3).
        folder: of objects.
        sandbox: in which they are opened.

    Raises:
        FileNotFoundError, ValueError: there are none, or none is ok.
    """
    height, width = given.shape[1:3]
    names = list(folders.objects(folder))
    asked = [{"path": str(folder / name / PICTURES[0]), "height": height, "width": width} for name in names]
    found = sandbox.map("picture_file", asked)
    seen = {name: one["picture"] for name, one in zip(names, found, strict=True) if one["status"] == "ok"}
    return np.stack([_views_of_nearest(view, seen, folder, sandbox) for view in given])


def _views_of_nearest(given: np.ndarray, seen: Mapping[str, np.ndarray], folder: Path, sandbox: Sandbox) -> np.ndarray:
    far = {name: np.square(given.astype(np.float32) - view).sum() for name, view in seen.items()}
    for name in sorted(far, key=far.__getitem__):
        with contextlib.suppress(Refused):
            return read_object(folder / name, sandbox, *given.shape[:2])[0][1:]
    raise ValueError(f"none of the objects in {folder} is usable")


def coded(pipeline: StivPipeline, views: np.ndarray, batch: int) -> np.ndarray:
    """Return views, uint8 RGB (N, V, H, W, 3), as the VAE alone leaves them, which no model exceeds by much."""
    flat = views.reshape(-1, *views.shape[2:])
    pixels = decode(pipeline.vae, encode(pipeline.vae, to_pixels(flat), batch), batch)
    back = ((pixels.permute(0, 2, 3, 1).float() + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
    return back.reshape(views.shape)


def rows_of(truth: np.ndarray, ways: Mapping[str, np.ndarray]) -> list[Row]:
    """Return what each way's views, uint8 RGB (N, V, H, W, 3), have in common with the true ones."""
    network = lpips.load()
    found = []
    for name, made in ways.items():
        values: dict[str, list[float]] = {metric: [] for metric in METRICS}
        for view in range(truth.shape[1]):
            pair = made[:, view], truth[:, view]
            values["psnr"].append(fidelity.psnr(*pair))
            values["ssim"].append(fidelity.ssim(*pair))
            values["lpips"].append(lpips.distance(network, *pair))
        found.append(Row(name, values))
    return found


def sheet(given: np.ndarray, ways: Iterable[np.ndarray]) -> np.ndarray:
    """Return a picture of all: per object a line for each way, the given view, (N, H, W, 3), at its left; uint8 RGB."""
    lines = []
    for at, view in enumerate(given):
        for place, way in enumerate(ways):
            first = view if place == 0 else np.full_like(view, 255)
            lines.append(np.concatenate([first, *way[at]], axis=1))
    return np.concatenate(lines)
