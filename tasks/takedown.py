"""A video must go: what has it, and how it is removed from all of that.

The video's sha256 goes to `videos.forgotten` of params.yaml, so that it is refused wherever it turns up again; the raw
files and what was made from them are deleted; the stages then make the rest again without it.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq

from stiv_model import latent_table
from stiv_model.sample_table import SAMPLES
from tasks import lineage, sources
from tasks.lineage import Workspace

log = logging.getLogger(__name__)


class Takedown(NamedTuple):
    """Everything on this machine, and in the source, that holds one video or was made from it."""

    video: str
    """sha256."""
    raw: list[str]
    """uris in the source."""
    texts: list[str]
    """Sidecars."""
    cached: list[Path]
    """Copies of objects of a bucket."""
    shots: int
    clips: int
    stages: list[Path]
    """Outputs that hold rows, pictures or latents of it, or weights that were trained on it or come from such."""
    untouched: list[Path]
    """Checkpoints that never saw it."""

    @property
    def checkpoints(self) -> list[Path]:
        return [path for path in self.stages if (path / SAMPLES).exists()]


def plan(space: Workspace, source: str, cache: Path, video: str) -> Takedown:
    """Find what must go with one video, without touching anything.

    Args:
        video: sha256, or its beginning, or uri, or a shot of it.

    Raises:
        ValueError: no such video, or several are meant.
    """
    rows = lineage.videos_of(space, video)
    hashes = {row["video"] for row in rows if row["video"]}
    if len(hashes) != 1:
        raise ValueError(f"{video} means {len(hashes)} videos ({', '.join(sorted(hashes))}): name one by its sha256")
    [sha256] = hashes
    same = pq.read_table(space.table("videos"), filters=[("video", "==", sha256)])["uri"].to_pylist()
    items = {item.uri: item for item in sources.listing(source)}
    raw = [uri for uri in same if uri in items]
    shots = _count(space.table("shots"), "video", sha256)
    clips = _count(space.table("latents"), "video", sha256)
    folders = [space.table(stage).parent for stage in ("videos", "shots", "scores", "clips", "captions", "latents")]
    tainted, clean = _checkpoints(space, sha256)
    pages = [space.reports / "data_docs", space.reports / "report.html"]
    made = [*folders, *tainted, *_unfinished(space, sha256), *pages, *([space.data / "samples"] if tainted else [])]
    return Takedown(
        sha256,
        raw,
        [text for uri in raw if (text := items[uri].sidecar)],
        [path for path in [cache / sha256] if path.exists()],
        shots,
        clips,
        [path for path in made if path.exists()],
        clean,
    )


def _count(table: Path, column: str, value: str) -> int:
    return len(pq.read_table(table, columns=[column], filters=[(column, "==", value)])) if table.exists() else 0


def _checkpoints(space: Workspace, sha256: str) -> tuple[list[Path], list[Path]]:
    """Return the checkpoints that saw the video, or come from one that did, and the others."""
    saw = {
        folder.resolve()
        for folder in space.trained
        if pc.any(pc.equal(lineage.trained_on(folder)["video"], sha256)).as_py()
    }
    tainted: list[Path] = []
    clean: list[Path] = []
    for folder in space.trained:
        touched = any(one.resolve() in saw for one in lineage.ancestry(folder))
        (tainted if touched else clean).append(folder)
    return tainted, clean


def _unfinished(space: Workspace, sha256: str) -> list[Path]:
    """Return the folders of runs that have not ended, whose latents hold the video, or cannot say any more."""
    found = []
    for folder in sorted(space.checkpoints.glob("*.partial")):
        run = folder / "run.json"
        latents = Path(json.loads(run.read_text())["latents"]) if run.exists() else space.data / "latents"
        table = latents / latent_table.TABLE
        if not table.exists() or _count(table, "video", sha256):
            found.append(folder)
    return found


def carry_out(takedown: Takedown, source: str, earlier_rows: Path) -> None:
    """Delete the raw files, their copies, and every output that holds the video. Twice does no harm.

    Raises:
        PermissionError, ConnectionError: the source does not let go of a file; what was deleted before stays so.
    """
    for uri in [*takedown.raw, *takedown.texts]:
        sources.delete(source, uri)
        log.info("deleted %s", uri)
    for path in takedown.cached:
        path.unlink(missing_ok=True)
    for folder in takedown.stages:
        for one in (folder, folder.with_name(f"{folder.name}.partial")):
            if one.is_dir():
                shutil.rmtree(one)
            else:
                one.unlink(missing_ok=True)
        log.info("deleted %s", folder)
    shutil.rmtree(earlier_rows, ignore_errors=True)
