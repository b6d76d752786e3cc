"""The flow behind stage captions."""

from functools import partial
from pathlib import Path

from prefect import flow

from flows.running.code_hash import code_of
from flows.running.progress import publish, run_shards
from flows.running.task_runner import resources
from tasks.captions import stage as captioning
from tasks.settings import CaptionSettings, EngineSettings
from tasks.storage import atomic as resume
from tasks.storage import shards
from tasks.storage import tables as manifest


@flow
def caption(clips: Path, out: Path, report: Path, captions: CaptionSettings, engine: EngineSettings) -> None:
    """Write one caption per clip.

    examples:
      stiv caption --clips data/clips --out data/captions --report reports/captions.json
    """
    table = clips / "clips.parquet"
    rows = manifest.ok(manifest.read_rows(table, manifest.CLIPS))
    work = resume.open_work(
        out, {"clips": resume.sha256_file(table), "captions": captions.model_dump(), "code": code_of("captions")}
    )
    parts = shards.cut(work, rows, captions.shard_clips)
    with resources(engine):
        run_shards("clips", parts, partial(captioning.caption_shard.submit, settings=captions))
    publish("captions", captioning.join_captions(work, parts, out, report))
