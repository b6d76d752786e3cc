"""The flow behind stage captions."""

from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.progress import SHARDS_AT_ONCE, publish, run_shards
from tasks import captions as captioning
from tasks import manifest, resume, shards
from tasks.settings import CaptionSettings

RUNNER: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=SHARDS_AT_ONCE)


@flow(task_runner=RUNNER)
def caption(clips: Path, out: Path, report: Path, captions: CaptionSettings) -> None:
    """Write one caption per clip."""
    table = clips / "clips.parquet"
    rows = manifest.ok(manifest.read_rows(table, manifest.CLIPS))
    work = resume.open_work(out, {"clips": resume.sha256_file(table), "captions": captions.model_dump()})
    parts = shards.cut(work, rows, captions.shard_clips)
    todo = [part for part in parts if not part.is_done]
    run_shards(
        "clips",
        [len(part.given) for part in todo],
        [partial(captioning.caption_shard.submit, part, captions) for part in todo],
    )
    publish("captions", captioning.join_captions(work, parts, out, report))
