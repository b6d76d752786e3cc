"""The flows from raw files to scored shots: collect, probe, split, score."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow

from flows.running.code_hash import code_of
from flows.running.progress import Work, follow, publish, run_shards
from flows.running.task_runner import resources
from tasks.demo import corpus as corpora
from tasks.sandbox.pool import Fence
from tasks.scores import stage as scoring
from tasks.settings import CorpusSettings, EngineSettings, FenceSettings, ScoreSettings, ShotSettings, VideoSettings
from tasks.storage import atomic as resume
from tasks.storage import reuse as earlier
from tasks.storage import shards
from tasks.storage import tables as manifest
from tasks.storage.shards import Shard
from tasks.videos import probe as probing
from tasks.videos import shot_rules, sources
from tasks.videos import split as splitting

log = logging.getLogger(__name__)


@flow
def collect(out: Path, report: Path, corpus: CorpusSettings, videos: VideoSettings) -> None:
    """Make the embedded raw videos: generated shapes with captions, and the real videos of a package.

    examples:
      stiv collect --out data/raw --report reports/corpus.json
    """
    run = {"corpus": corpus.model_dump(), "forgotten": videos.forgotten}
    product = resume.open_work(out, run) / "product"
    product.mkdir(exist_ok=True)
    starts = range(0, corpus.shapes, corpora.SHARD_VIDEOS)
    parts = [range(start, min(corpus.shapes, start + corpora.SHARD_VIDEOS)) for start in starts]
    submit = corpora.make_shapes.submit
    follow("videos", [Work(f"{part}", len(part), partial(submit, part, product, corpus)) for part in parts])
    publish("corpus", *corpora.finish_corpus(product, out, report, corpus, videos.forgotten))


@flow
def probe(
    source: str, out: Path, report: Path, videos: VideoSettings, fence: FenceSettings, engine: EngineSettings
) -> None:
    """Open every raw file and say what it is, or why it is not used."""
    items = sources.listing(source)
    made_with = {"videos": videos.model_dump(exclude={"forgotten", "max_failed_fraction"})} | _made_with(
        "videos", fence
    )
    kept = earlier.folder(earlier.EARLIER, "videos", made_with | {"source": source})
    run = made_with | {"source": source, "items": sources.listing_hash(items), "forgotten": videos.forgotten}
    work = resume.open_work(out, run | {"earlier": earlier.stamp(kept)})
    taken = _told(probing.take_over(kept, work, items, videos))
    parts = shards.cut(work, shards.rest(items, taken), probing.SHARD_FILES)
    with Fence(fence) as opened, resources(engine):
        submit = partial(probing.probe_shard.submit, source=source, settings=videos, fence=opened, cache=sources.CACHE)
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
    fence: FenceSettings,
    engine: EngineSettings,
) -> None:
    """Cut every video into shots, and measure them, in one decoding pass.

    examples:
      stiv split --source data/raw --videos data/videos --out data/shots --report reports/shots.json
    """
    table = videos / manifest.VIDEO_TABLE
    given = sorted(manifest.ok(manifest.read_rows(table, manifest.VIDEOS)), key=lambda row: row["video"])
    decides = {
        "shots": shots.model_dump(exclude={"shard_seconds", "max_failed_fraction"}),
        "made_by": shot_rules.made_by(shots),
    }
    made_with = decides | _made_with("shots", fence)
    kept = earlier.folder(earlier.EARLIER, "shots", made_with)
    run = made_with | {"source": source, "videos": resume.sha256_file(table), "shard_seconds": shots.shard_seconds}
    work = resume.open_work(out, run | {"earlier": earlier.stamp(kept)})
    taken = _told(splitting.take_over(kept, work, given))
    parts = shards.cut(work, shards.rest(given, taken), shots.shard_seconds, weight=lambda video: video["seconds"])
    with Fence(fence) as opened, resources(engine):
        submit = partial(splitting.split_shard.submit, source=source, settings=shots, fence=opened, cache=sources.CACHE)
        run_shards("hours", parts, submit, weight=lambda video: video["seconds"] / 3600)
    publish("shots", *splitting.join_shots(work, [*_with(taken), *parts], shots, out, report))
    earlier.keep([out / name for name in (manifest.SPLIT_TABLE, manifest.SHOT_TABLE, manifest.STILL_TABLE)], kept)


@flow
def score(shots: Path, out: Path, report: Path, scores: ScoreSettings, engine: EngineSettings) -> None:
    """Score every shot by its stills.

    examples:
      stiv score --shots data/shots --out data/scores --report reports/scores.json
    """
    table, stills = shots / manifest.SHOT_TABLE, shots / manifest.STILL_TABLE
    given = scoring.usable_shots(table)
    decides = {"scores": scores.model_dump(exclude={"shard_shots"}), "made_by": scoring.scorer(scores).names()}
    made_with = decides | {"code": code_of("scores")}
    kept = earlier.folder(earlier.EARLIER, "scores", made_with)
    run = made_with | {
        "shots": resume.sha256_file(table),
        "stills": resume.sha256_file(stills),
        "shard_shots": scores.shard_shots,
    }
    work = resume.open_work(out, run | {"earlier": earlier.stamp(kept)})
    taken = _told(scoring.take_over(kept, work, given, stills))
    parts = shards.cut(work, shards.rest(given, taken), scores.shard_shots)
    with resources(engine):
        run_shards("shots", parts, partial(scoring.score_shard.submit, stills=stills, settings=scores))
    publish("scores", scoring.join_scores(work, [*_with(taken), *parts], scores, out, report))
    earlier.keep([out / manifest.SCORE_TABLE, stills], kept)


def _made_with(stage: str, fence: FenceSettings) -> dict[str, Any]:
    """Return what decides about a row that comes of a raw video, beside the stage's own settings."""
    return {"fence": fence.model_dump(exclude={"workers", "strict"}), "code": code_of(stage)}


def _told(taken: Shard) -> Shard:
    if taken.given:
        log.info("%d are taken over from an earlier run", len(taken.given))
    return taken


def _with(taken: Shard) -> list[Shard]:
    return [taken] if taken.given else []
