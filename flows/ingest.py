"""The command `stiv ingest`: what other tools wrote becomes a source."""

import logging
import shutil
from pathlib import Path

from tqdm import tqdm

from tasks import ingest as foreign
from tasks import resume
from tasks.settings import FenceSettings, VideoSettings

log = logging.getLogger(__name__)


def ingest(*paths: Path, out: Path, videos: VideoSettings, fence: FenceSettings) -> None:
    """Take in WebDataset tars, or an output folder of cosmos-curate or NeMo Curator (one with metas/v0).

    OUT becomes a folder with the videos and list.jsonl, which `source` of params.yaml can name, and account.json.

      stiv ingest shards/*.tar --out data/ingested
      stiv ingest /data/curated --out data/ingested

    Raises:
        ValueError: a path is neither, or nothing usable is in them.
    """
    if not paths:
        raise ValueError("nothing to take in: name tars, or folders with metas/v0 in them")
    tars = [path for path in paths if path.is_file() and ".tar" in path.suffixes[-2:]]
    folders = [path for path in paths if (path / "metas" / "v0").is_dir()]
    if wrong := [path for path in paths if path not in tars and path not in folders]:
        raise ValueError(f"{wrong[0]} is neither a tar nor a folder with metas/v0 in it")
    product = out.with_name(f"{out.name}.partial")
    shutil.rmtree(product, ignore_errors=True)
    product.mkdir(parents=True)
    found = []
    with tqdm(unit="sample", desc="ingest") as bar:
        for one in foreign.from_tars(tars, product, videos.extensions, fence.max_size_bytes):
            found.append(one)
            bar.update()
        for folder in folders:
            for one in foreign.from_curator(folder, product):
                found.append(one._replace(name=f"{folder}/{one.name}"))
                bar.update()
    account = foreign.settle(product, found, product / "account.json")
    resume.finish(product, out)
    log.info("%d samples: %d ok, %d rejected, %d failed", account.given, account.ok, account.rejected, account.failed)
    log.info("set source: %s in params.yaml", out / foreign.LIST)
