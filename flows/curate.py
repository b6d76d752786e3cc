"""The flows from raw files to scored shots: collect, probe, split, score."""

from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.progress import SHARDS_AT_ONCE, publish, run_shards
from tasks import corpus as corpora
from tasks import manifest, resume, shards, sources
from tasks import scores as scoring
from tasks import shots as splitting
from tasks import videos as probing
from tasks.fence import Fence
from tasks.settings import CorpusSettings, FenceSettings, ScoreSettings, ShotSettings, VideoSettings

RUNNER: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=SHARDS_AT_ONCE)


@flow(task_runner=RUNNER)
def collect(out: Path, report: Path, corpus: CorpusSettings) -> None:
    """Make the embedded raw videos: generated shapes with captions, and the real videos of a package."""
    product = resume.open_work(out, {"corpus": corpus.model_dump()}) / "product"
    product.mkdir(exist_ok=True)
    starts = range(0, corpus.shapes, corpora.SHARD_VIDEOS)
    parts = [range(start, min(corpus.shapes, start + corpora.SHARD_VIDEOS)) for start in starts]
    run_shards(
        "videos",
        [len(part) for part in parts],
        [partial(corpora.make_shapes.submit, part, product, corpus) for part in parts],
    )
    publish("corpus", *corpora.finish_corpus(product, out, report, corpus))


@flow(task_runner=RUNNER)
def probe(source: str, out: Path, report: Path, videos: VideoSettings, fence: FenceSettings) -> None:
    """Open every raw file and say what it is, or why it is not used."""
    items = sources.listing(source)
    limits = fence.model_dump(exclude={"workers"})
    run = {
        "source": source,
        "items": sources.listing_hash(items),
        "videos": videos.model_dump(),
        "fence": limits,
    }
    work = resume.open_work(out, run)
    parts = shards.cut(work, items, probing.SHARD_FILES)
    todo = [part for part in parts if not part.is_done]
    with Fence(fence) as opened:
        run_shards(
            "files",
            [len(part.given) for part in todo],
            [partial(probing.probe_shard.submit, part, source, videos, opened, sources.CACHE) for part in todo],
        )
    publish("videos", probing.join_videos(work, parts, videos, out, report))


@flow(task_runner=RUNNER)
def split(source: str, videos: Path, out: Path, report: Path, shots: ShotSettings, fence: FenceSettings) -> None:
    """Cut every video into shots, and measure them, in one decoding pass."""
    table = videos / manifest.VIDEO_TABLE
    limits = fence.model_dump(exclude={"workers"})
    run = {
        "source": source,
        "videos": resume.sha256_file(table),
        "shots": shots.model_dump(),
        "fence": limits,
    }
    work = resume.open_work(out, run)
    parts = shards.cut(work, manifest.ok(manifest.read_rows(table, manifest.VIDEOS)), shots.shard_videos)
    todo = [part for part in parts if not part.is_done]
    with Fence(fence) as opened:
        run_shards(
            "videos",
            [len(part.given) for part in todo],
            [partial(splitting.split_shard.submit, part, source, shots, opened, sources.CACHE) for part in todo],
        )
    publish("shots", *splitting.join_shots(work, parts, shots, out, report))


@flow(task_runner=RUNNER)
def score(shots: Path, out: Path, report: Path, scores: ScoreSettings) -> None:
    """Score every shot by its stills."""
    stills = shots / manifest.STILL_TABLE
    run = {"shots": resume.sha256_file(shots / manifest.SHOT_TABLE), "stills": resume.sha256_file(stills)}
    work = resume.open_work(out, run | {"scores": scores.model_dump()})
    parts = shards.cut(work, scoring.usable_shots(shots / manifest.SHOT_TABLE), scores.shard_shots)
    todo = [(number * scores.shard_shots, part) for number, part in enumerate(parts) if not part.is_done]
    run_shards(
        "shots",
        [len(part.given) for _, part in todo],
        [partial(scoring.score_shard.submit, part, first, stills) for first, part in todo],
    )
    publish("scores", scoring.join_scores(work, parts, out, report))
