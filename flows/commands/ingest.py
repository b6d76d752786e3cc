"""The command `stiv ingest`: what other tools wrote becomes a source."""

import logging
import shutil
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from tasks.sandbox.settings import SandboxSettings
from tasks.storage import atomic
from tasks.videos.ingest import ACCOUNT, LIST, VIDEOS, from_curator, from_tars, write_list
from tasks.videos.settings import VideoSettings

log = logging.getLogger(__name__)


def ingest(*paths: Path, out: Path, videos: VideoSettings, sandbox: SandboxSettings) -> None:
    """Make a source of raw videos from WebDataset tars, or from what cosmos-curate or NeMo Curator wrote.

    The folder OUT gets the videos; list.jsonl, which `source` of params.yaml can name; and account.json, which says
    what became of each sample.

    Args:
        paths: WebDataset tars, or output folders of cosmos-curate or NeMo Curator (those with metas/v0).
        out: Folder for the videos, list.jsonl and account.json.

    examples:
      stiv ingest shards/*.tar --out data/ingested
      stiv ingest /data/curated --out data/ingested

    An OUT that an earlier ingest made is replaced; anything else that is there stays, and is an error.

    Raises:
        ValueError: a path is neither or is named twice, nothing usable is in them, or OUT may not be replaced.
    """
    if not paths:
        raise ValueError("nothing to take in: name tars, or folders with metas/v0 in them")
    tars = [path for path in paths if path.is_file() and _is_tar(path)]
    folders = [path for path in paths if (path / "metas" / "v0").is_dir()]
    if wrong := [path for path in paths if path not in tars and path not in folders]:
        raise ValueError(f"{wrong[0]} is neither a tar nor a folder with metas/v0 in it")
    if twice := [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]:
        raise ValueError(f"{twice[0]} is named twice: once is enough")
    out = out.resolve()
    _check_out(out, paths)
    product = out.with_name(f"{out.name}.partial")
    shutil.rmtree(product, ignore_errors=True)
    product.mkdir(parents=True)
    found = []
    with tqdm(unit="sample", desc="ingest") as bar:
        for one in from_tars(tars, product, videos.extensions, sandbox.max_size_bytes):
            found.append(one)
            bar.update()
        for one in from_curator(folders, product, len(tars)):
            found.append(one)
            bar.update()
    account = write_list(product, found, product / ACCOUNT)
    atomic.finish(product, out)
    log.info("%d samples: %d ok, %d rejected, %d failed", account.given, account.ok, account.rejected, account.failed)
    log.info("set source: %s in params.yaml", out / LIST)


def _is_tar(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return ".tar" in suffixes or suffixes[-1:] in ([".tgz"], [".tbz2"], [".txz"])


def _check_out(out: Path, paths: tuple[Path, ...]) -> None:
    """Refuse to replace what ingest did not make, or what it is to read."""
    for path in paths:
        for place in (out, out.with_name(f"{out.name}.partial")):
            if place.is_relative_to(path.resolve()) or path.resolve().is_relative_to(place):
                raise ValueError(f"--out {out}: {place} would replace what is read from {path}: name another folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"--out {out} is a file: name a folder")
    held, ours = {entry.name for entry in out.iterdir()}, {LIST, ACCOUNT, VIDEOS}
    if held and held != ours:
        example = min(held - ours or held)
        raise ValueError(f"--out {out} was not made by ingest, it holds {example}: name a new or an empty folder")
