"""The flow behind stage latents."""

from pathlib import Path

from prefect import flow

from flows.running.run_stage import run_stage
from flows.running.settings import EngineSettings
from stiv_model.encoders import devices as placement
from stiv_model.settings import DeviceSettings, TextSettings, VaeSettings
from tasks.latents.encode import Latents
from tasks.latents.settings import LatentSettings
from tasks.sandbox.settings import SandboxSettings
from tasks.storage.object_cache import ObjectCache
from tasks.videos.sources import CACHE


@flow
def encode(
    source: str,
    clips: Path,
    captions: Path,
    out: Path,
    report: Path,
    latents: LatentSettings,
    vae: VaeSettings,
    text: TextSettings,
    sandbox: SandboxSettings,
    devices: DeviceSettings,
    engine: EngineSettings,
    categories: Path | None = None,
) -> None:
    """Encode every captioned clip, once, by the VAE and the text encoder.

    Args:
        source: Raw videos: a folder, s3://bucket/prefix, or a list (.csv, .jsonl, .parquet).
        clips: Folder with the table of clips.
        captions: Folder with the table of captions.
        out: Folder for the latents and text features, packed in shards, and their table.
        report: File for the account of the stage (JSON): how many inputs became ok, rejected or failed, and why.
        categories: Folder with the table of categories, for trainings that are balanced by them; without it, none has.

    examples:
      stiv encode --source data/raw --clips data/clips --captions data/captions --out data/latents \\
        --report reports/latents.json
    """
    if engine.kind == "local":  # the workers of Ray are elsewhere, and check it for themselves
        placement.check(devices.encoders, "devices.encoders")
    elif devices.encoders == "cuda" and not engine.gpus_per_shard:
        raise ValueError(
            "devices.encoders is cuda, but engine.gpus_per_shard is 0, so that Ray shows a shard no GPU: set it to 1, "
            "or to a fraction where several shards shall share one"
        )
    cache = ObjectCache(CACHE, engine.source_cache_bytes)
    stage = Latents(
        source,
        clips,
        captions,
        latents,
        vae,
        text,
        sandbox,
        device=devices.encoders,
        cache=cache,
        categories=categories,
    )
    run_stage(stage, out, report, engine)
