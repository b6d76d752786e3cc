"""A video must go: what has it, and how it is removed from all of that.

The video's sha256 goes to `videos.forgotten` of params.yaml, so that it is refused wherever it turns up again; the raw
files and what was made from them are deleted; the stages then make the rest again without it.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stiv_model.latents.folder import TABLE
from stiv_model.latents.training_set import SAMPLES
from stiv_model.settings import RUN_FILE
from tasks.chat.store import STORE, forget
from tasks.dsg import audit
from tasks.lineage import lineage
from tasks.lineage.lineage import Workspace
from tasks.storage import atomic, tables
from tasks.storage.object_cache import ObjectCache
from tasks.videos import buckets, source_lists, sources

log = logging.getLogger(__name__)


class Takedown(NamedTuple):
    """Everything on this machine, and in the source, that holds one video or was made from it."""

    video: str
    """sha256 of its bytes."""
    raw: list[str]
    """uris of its files in the source, or paths below the source's folder."""
    texts: list[str]
    """uris of the texts beside them."""
    cached: list[Path]
    """Copies of objects of a bucket."""
    shots: int
    clips: int
    stages: list[Path]
    """Outputs that hold rows, pictures or latents of it, or weights that were trained on it or started from such."""
    untouched: list[Path]
    """Checkpoints that never saw it."""

    @property
    def checkpoints(self) -> list[Path]:
        return [path for path in self.stages if (path / SAMPLES).exists()]


def trace(space: Workspace, source: str, cache: Path, video: str) -> Takedown:
    """Find everything that holds one video or was made from it; nothing is changed.

    Args:
        space: where the stages' outputs are.
        source: the raw videos, as `source` of params.yaml has it.
        cache: folder with the copies of objects of a bucket.
        video: its sha256 or the first eight or more characters of that, its uri, or the id of one of its shots.

    Raises:
        ValueError: no such video, or several are meant.
        PermissionError, ConnectionError: the source does not show a file that may be a copy.
    """
    rows = lineage.videos_of(space, video)
    hashes = {row["video"] for row in rows if row["video"]}
    if len(hashes) != 1:
        raise ValueError(f"{video} means {len(hashes)} videos ({', '.join(sorted(hashes))}): name one by its sha256")
    [sha256] = hashes
    same = pq.read_table(space.table("videos"), filters=[("video", "==", sha256)]).to_pylist()
    sizes = {row["size_bytes"] for row in same} - {None}
    items = _items_like(source, {row["uri"] for row in same}, sizes)
    raw = [row["uri"] for row in same if row["uri"] in items]
    raw += _unhashed(source, cache, sha256, sizes, items, space)
    shots = _count(space.table("shots"), "video", sha256)
    clips = _count(space.table("latents"), "video", sha256)
    folders = [space.table(stage).parent for stage in space.stages]
    tainted, clean = _checkpoints(space, sha256)
    samples = [space.data / "samples"] if tainted else []
    made = [*folders, *tainted, *_unfinished(space, sha256), *space.pages, *samples]
    return Takedown(
        sha256,
        raw,
        sorted({text for uri in raw if (text := _text_of(source, uri, items))} - {*raw}),
        [path for path in [cache / sha256] if path.exists()],
        shots,
        clips,
        [path for path in made if path.exists() or _unfinished_of(path).exists()],
        clean,
    )


def _items_like(source: str, uris: set[str], sizes: set[int]) -> dict[str, sources.Item]:
    """Return the items of a source, by uri, that have one of the uris, or one of the sizes: of many, few."""
    with tempfile.TemporaryDirectory(prefix="stiv-forget-") as folder:
        table = Path(folder) / "listing"
        sources.write_listing(source, table)
        return {item.uri: item for item in sources.read_listing(table) if item.uri in uris or item.size_bytes in sizes}


def _hashed(space: Workspace, uris: list[str]) -> set[str]:
    """Return those of some files whose bytes were read, so that the table says which of them are copies."""
    is_text = [uri for uri in uris if uri == uri.encode(errors="replace").decode()]  # no table has others
    is_read = pc.field("uri").isin(pa.array(is_text, pa.string())) & pc.field("video").is_valid()
    return set(pq.read_table(space.table("videos"), columns=["uri"], filters=is_read)["uri"].to_pylist())


def _unhashed(
    source: str, cache: Path, sha256: str, sizes: set[int], items: dict[str, sources.Item], space: Workspace
) -> Iterator[str]:
    """Give the copies that no table knows of: rejected by name or size before they were read, hidden, or new."""
    if source.startswith(buckets.PREFIX) or source_lists.is_list(source):
        same_size = [item.uri for item in items.values() if not item.problem and item.size_bytes in sizes]
        known = _hashed(space, same_size)
        for uri in (uri for uri in same_size if uri not in known):
            with sources.lend(source, uri, None, ObjectCache(cache)) as path:
                if atomic.sha256_file(path) == sha256:
                    yield uri
        return
    root = Path(source).resolve()
    same_size = [path.relative_to(root).as_posix() for path in _files(root) if path.stat().st_size in sizes]
    known = _hashed(space, same_size)
    for uri in (uri for uri in same_size if uri not in known):
        if atomic.sha256_file(root / uri) == sha256:
            yield uri


def _text_of(source: str, uri: str, items: dict[str, sources.Item]) -> str | None:
    """Return the text beside a file; the source lists no text of a file that it does not list."""
    if uri in items:
        return items[uri].sidecar
    text = PurePosixPath(uri).with_suffix(sources.SIDECAR)
    return str(text) if (Path(source) / text).is_file() else None


def _files(root: Path) -> Iterator[Path]:
    """Give all files of a folder in a fixed order; what is only linked to is not in it."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(folder, name)).is_file() and not path.is_symlink())


def shown(name: str) -> str:
    """Return a name fit for one line of text: quoted with escapes if it has line breaks or bytes that are no text."""
    return name if name.isprintable() else repr(name)


def _count(table: Path, column: str, value: str) -> int:
    return len(pq.read_table(table, columns=[column], filters=[(column, "==", value)])) if table.exists() else 0


def _checkpoints(space: Workspace, sha256: str) -> tuple[list[Path], list[Path]]:
    """Return the checkpoints that saw the video, or come from one that did, and the others."""
    saw = {folder.resolve() for folder in space.trained if lineage.has_seen(folder, sha256)}
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
        run = folder / RUN_FILE
        latents = Path(json.loads(run.read_text())["latents"]) if run.exists() else space.data / "latents"
        table = latents / TABLE
        if not table.exists() or _count(table, "video", sha256):
            found.append(folder)
    return found


def _unfinished_of(folder: Path) -> Path:
    """Return where a stage works on what gets this name."""
    return folder.with_name(f"{folder.name}.partial")


def carry_out(
    takedown: Takedown, source: str, earlier_rows: Path, answers: Path = STORE, audits: Path = audit.FOLDER
) -> None:
    """Delete the raw files, their copies, and every output that holds the video; doing it twice does no harm.

    Args:
        takedown: what `trace` found.
        source: the raw videos, as `source` of params.yaml has it.
        earlier_rows: folder of the tables of earlier runs (`tasks/storage/reuse.py`), which is deleted whole.
        answers: file of what models have said of clips, from which that of the video's is deleted.
        audits: folder of what people have said of captions, likewise.

    Raises:
        PermissionError, ConnectionError: the source does not let go of a file; what was deleted before stays so.
    """
    for uri in [*takedown.raw, *takedown.texts]:
        sources.delete(source, uri)
        log.info("deleted %s", shown(uri))
    for path in takedown.cached:
        path.unlink(missing_ok=True)
    for folder in takedown.stages:
        for one in (folder, _unfinished_of(folder)):
            if one.is_dir():
                shutil.rmtree(one)
            else:
                one.unlink(missing_ok=True)
        log.info("deleted %s", folder)
    shutil.rmtree(earlier_rows, ignore_errors=True)
    clips = tables.clip_id(takedown.video, 0, 0).partition("-")[0]
    if said := forget(answers, clips):
        log.info("deleted %d answers of models about its clips", said)
    if said := audit.forget(audits, clips):
        log.info("deleted %d lines of %s about its clips; git has its earlier versions", said, audits / audit.FILE)
