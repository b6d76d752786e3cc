"""The flow behind stage captions."""

from functools import partial
from pathlib import Path

from prefect import flow

from flows.running.code_hash import code_of
from flows.running.progress import publish, run_shards
from flows.running.settings import EngineSettings
from flows.running.task_runner import resources
from tasks.captions import stage
from tasks.captions.settings import CaptionSettings
from tasks.storage import atomic, shards, tables


@flow
def caption(clips: Path, out: Path, report: Path, captions: CaptionSettings, engine: EngineSettings) -> None:
    """Write one caption per clip.

    examples:
      stiv caption --clips data/clips --out data/captions --report reports/captions.json
    """
    table = clips / "clips.parquet"
    rows = tables.ok(tables.read_rows(table, tables.CLIPS))
    work = atomic.open_workdir(
        out, {"clips": atomic.sha256_file(table), "captions": captions.model_dump(), "code": code_of("captions")}
    )
    parts = shards.cut(work, rows, captions.shard_clips)
    with resources(engine):
        run_shards("clips", parts, partial(stage.caption_shard.submit, settings=captions))
    publish("captions", stage.join_captions(work, parts, out, report))
