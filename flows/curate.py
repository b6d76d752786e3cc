"""The flows from raw files to scored shots: collect, probe, split, score."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow

from flows.running.code_hash import code_of
from flows.running.progress import Work, follow, publish, run_shards
from flows.running.settings import EngineSettings
from flows.running.task_runner import resources
from tasks.demo import corpus as corpora
from tasks.demo.settings import CorpusSettings
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import SandboxSettings
from tasks.scores import stage as scoring
from tasks.scores.settings import ScoreSettings
from tasks.storage import atomic, reuse, shards, tables
from tasks.storage.shards import Shard
from tasks.videos import probe as probing
from tasks.videos import shot_rules, sources
from tasks.videos import split as splitting
from tasks.videos.settings import ShotSettings, VideoSettings

log = logging.getLogger(__name__)


@flow
def collect(out: Path, report: Path, corpus: CorpusSettings, videos: VideoSettings) -> None:
    """Make the embedded raw videos: generated shapes with captions, and the real videos of a package.

    Args:
        out: Folder for the raw videos.
        report: File for the account of the stage (JSON): how many were given, ok, rejected and failed, and why.

    examples:
      stiv collect --out data/raw --report reports/corpus.json
    """
    run = {"corpus": corpus.model_dump(), "forgotten": videos.forgotten}
    product = atomic.open_workdir(out, run) / "product"
    product.mkdir(exist_ok=True)
    starts = range(0, corpus.shapes, corpora.SHARD_VIDEOS)
    parts = [range(start, min(corpus.shapes, start + corpora.SHARD_VIDEOS)) for start in starts]
    submit = corpora.make_shapes.submit
    follow("videos", [Work(f"{part}", len(part), partial(submit, part, product, corpus)) for part in parts])
    publish("corpus", *corpora.finish_corpus(product, out, report, corpus, videos.forgotten))


@flow
def probe(
    source: str, out: Path, report: Path, videos: VideoSettings, sandbox: SandboxSettings, engine: EngineSettings
) -> None:
    """Open every raw file and say what it is, or why it is not used.

    Args:
        source: Raw videos: a folder, s3://bucket/prefix, or a list (.csv, .jsonl, .parquet).
        out: Folder for the table of videos, one row per raw file.
        report: File for the account of the stage (JSON): how many were given, ok, rejected and failed, and why.
    """
    items = sources.listing(source)
    made_with = {"videos": videos.model_dump(exclude={"forgotten", "max_failed_fraction"})} | _made_with(
        "videos", sandbox
    )
    kept = reuse.folder(reuse.EARLIER, "videos", made_with | {"source": source})
    run = made_with | {"source": source, "items": sources.listing_hash(items), "forgotten": videos.forgotten}
    work = atomic.open_workdir(out, run | {"earlier": reuse.fingerprint(kept)})
    taken = _told(probing.load_reusable(kept, work, items, videos))
    parts = shards.cut(work, shards.rest(items, taken), probing.SHARD_FILES)
    with Sandbox(sandbox) as opened, resources(engine):
        submit = partial(
            probing.probe_shard.submit, source=source, settings=videos, sandbox=opened, cache=sources.CACHE
        )
        run_shards("files", parts, submit)
    publish("videos", probing.join_videos(work, [*_with(taken), *parts], videos, out, report))
    probing.remember(items, out, kept)


@flow
def split(
    source: str,
    videos: Path,
    out: Path,
    report: Path,
    shots: ShotSettings,
    sandbox: SandboxSettings,
    engine: EngineSettings,
) -> None:
    """Cut every video into shots, and measure them, in one decoding pass.

    Args:
        source: Raw videos: a folder, s3://bucket/prefix, or a list (.csv, .jsonl, .parquet).
        videos: Folder with the table of videos, as stage videos wrote it.
        out: Folder for the table of shots and their stills.
        report: File for the account of the stage (JSON): how many were given, ok, rejected and failed, and why.

    examples:
      stiv split --source data/raw --videos data/videos --out data/shots --report reports/shots.json
    """
    table = videos / tables.VIDEO_TABLE
    given = sorted(tables.ok(tables.read_rows(table, tables.VIDEOS)), key=lambda row: row["video"])
    decides = {
        "shots": shots.model_dump(exclude={"shard_seconds", "max_failed_fraction"}),
        "made_by": shot_rules.made_by(shots),
    }
    made_with = decides | _made_with("shots", sandbox)
    kept = reuse.folder(reuse.EARLIER, "shots", made_with)
    run = made_with | {"source": source, "videos": atomic.sha256_file(table), "shard_seconds": shots.shard_seconds}
    work = atomic.open_workdir(out, run | {"earlier": reuse.fingerprint(kept)})
    taken = _told(splitting.load_reusable(kept, work, given))
    parts = shards.cut(work, shards.rest(given, taken), shots.shard_seconds, weight=lambda video: video["seconds"])
    with Sandbox(sandbox) as opened, resources(engine):
        submit = partial(
            splitting.split_shard.submit, source=source, settings=shots, sandbox=opened, cache=sources.CACHE
        )
        run_shards("hours", parts, submit, weight=lambda video: video["seconds"] / 3600)
    publish("shots", *splitting.join_shots(work, [*_with(taken), *parts], shots, out, report))
    reuse.save_reusable([out / name for name in (tables.SPLIT_TABLE, tables.SHOT_TABLE, tables.STILL_TABLE)], kept)


@flow
def score(shots: Path, out: Path, report: Path, scores: ScoreSettings, engine: EngineSettings) -> None:
    """Score every shot by its stills.

    Args:
        shots: Folder with the table of shots and their stills.
        out: Folder for the table of scores.
        report: File for the account of the stage (JSON): how many were given, ok, rejected and failed, and why.

    examples:
      stiv score --shots data/shots --out data/scores --report reports/scores.json
    """
    table, stills = shots / tables.SHOT_TABLE, shots / tables.STILL_TABLE
    given = scoring.usable_shots(table)
    decides = {"scores": scores.model_dump(exclude={"shard_shots"}), "made_by": scoring.scorer(scores).names()}
    made_with = decides | {"code": code_of("scores")}
    kept = reuse.folder(reuse.EARLIER, "scores", made_with)
    run = made_with | {
        "shots": atomic.sha256_file(table),
        "stills": atomic.sha256_file(stills),
        "shard_shots": scores.shard_shots,
    }
    work = atomic.open_workdir(out, run | {"earlier": reuse.fingerprint(kept)})
    taken = _told(scoring.load_reusable(kept, work, given, stills))
    parts = shards.cut(work, shards.rest(given, taken), scores.shard_shots)
    with resources(engine):
        run_shards("shots", parts, partial(scoring.score_shard.submit, stills=stills, settings=scores))
    publish("scores", scoring.join_scores(work, [*_with(taken), *parts], scores, out, report))
    reuse.save_reusable([out / tables.SCORE_TABLE, stills], kept)


def _made_with(stage: str, sandbox: SandboxSettings) -> dict[str, Any]:
    """Return what decides about a row that comes of a raw video, beside the stage's own settings."""
    return {"sandbox": sandbox.model_dump(exclude={"workers", "strict"}), "code": code_of(stage)}


def _told(taken: Shard) -> Shard:
    if taken.given:
        log.info("%d are taken over from an earlier run", len(taken.given))
    return taken


def _with(taken: Shard) -> list[Shard]:
    return [taken] if taken.given else []
