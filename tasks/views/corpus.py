"""Stage views_corpus: folders of views of the procedural objects, those of the training and those that are held out."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from stiv_model.diffusion.cameras import CAMERAS, Camera
from tasks.storage import atomic, tables
from tasks.storage.shards import Shard, Work
from tasks.storage.stage import Joined, Stage, alone
from tasks.views import folders, render
from tasks.views.scene import Scene, scenes
from tasks.views.settings import ViewSettings

TRAINING, HELD_OUT = "training", "held_out"
"""Folders of the corpus."""
_MADE = pa.schema([("name", pa.string()), ("status", pa.string()), ("reason", pa.string())])


def write_object(scene: Scene, folder: Path, settings: ViewSettings) -> None:
    """Write the views of an object and, after them, its cameras; all are left alone if these are there."""
    if (folder / folders.CAMERA_FILE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(folders.PICTURES, render.all_views(scene, settings), strict=True):
        Image.fromarray(picture).save(folder / name)
    cameras = (Camera(settings.elevation, 0.0), *CAMERAS)
    with atomic.atomic_write(folder / folders.CAMERA_FILE) as made:
        made.write_text(folders.cameras_json(cameras, render.DISTANCE, render.FIELD_OF_VIEW))


def make_shard(shard: Shard, product: Path, settings: ViewSettings) -> None:
    """Write one shard of objects into `product`."""
    training, held_out = scenes(settings)
    known = {name: scene for name, scene in _named(training, held_out)}
    names = [row["name"] for row in shard.read()]
    for name in names:
        write_object(known[name], product / name, settings)
    shard.write([{"name": name, "status": "ok", "reason": None} for name in names], _MADE)


def _named(training: list[Scene], held_out: list[Scene]) -> Iterator[tuple[str, Scene]]:
    for part, those in ((TRAINING, training), (HELD_OUT, held_out)):
        yield from ((f"{part}/{number:05d}", scene) for number, scene in enumerate(those))


class ViewsCorpus(Stage):
    """Stage views_corpus: a folder of objects, and no table: the next stage finds out what they are.

    Args:
        settings: which objects, and how they are seen.
    """

    name, verb, unit = "views_corpus", "render", "objects"
    schema = pa.schema([("name", pa.string())])

    def __init__(self, settings: ViewSettings) -> None:
        self.settings = settings

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        names = [name for name, _ in _named(*scenes(self.settings))]
        yield pa.RecordBatch.from_pydict({"name": names}, schema=self.schema)

    def decides(self) -> dict[str, Any]:
        return {"views": self.settings.model_dump(mode="json")}

    def inputs(self) -> dict[str, Any]:
        return {}

    def shard_size(self) -> float:
        return self.settings.shard_objects

    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[Shard], None]]:
        return alone(partial(make_shard, product=product, settings=self.settings))

    def join(self, work: Work, product: Path) -> Joined:
        rows = [row for part in work.parts for row in tables.read_rows(part.path, _MADE)]
        there = [row for row in rows if (product / row["name"] / folders.CAMERA_FILE).exists()]
        names = [name for batch in work.keys("name") for name in batch["name"].to_pylist()]
        return Joined((tables.reconcile("objects", names, there, "name"),))
