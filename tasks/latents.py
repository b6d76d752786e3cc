"""Encode every captioned clip once: frames through the frozen VAE, its caption through the frozen text encoder.

`OUT/shard-00000.safetensors` holds, for each clip of the shard, `latents` (frames, C, h, w), `tokens` (L, E), `mask`
(L,), `pooled` (E,); its metadata carries the hashes of the VAE and the text encoder that made it, and the loader
refuses a mixture. `OUT/latents.parquet` has one row per clip.
"""

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import NamedTuple

import torch
from prefect import task
from safetensors.torch import save_file

from stiv_model.latent_data import NULL_TEXT
from stiv_model.pixels import to_pixels
from stiv_model.settings import TextSettings, VaeSettings
from stiv_model.text import TextEncoder
from stiv_model.vae import Vae
from stiv_model.vae import load as load_vae
from tasks import manifest, resume
from tasks.fence import Fence
from tasks.manifest import Account
from tasks.settings import FenceSettings, LatentSettings
from tasks.sources import CACHE, local_file

log = logging.getLogger(__name__)

_CARRIED = ("clip", "video", "uri", "captioner", "text", "aesthetic", "motion", "width", "height")


class Encoders(NamedTuple):
    """The frozen networks, and the frames they are given."""

    vae: Vae
    text: TextEncoder
    settings: LatentSettings
    fence: Fence
    source: str
    cache: Path

    @property
    def made_by(self) -> dict[str, str]:
        return {"vae_sha256": self.vae.sha256, "text_sha256": self.text.sha256}


def encode_clips(clips: list[dict], encoders: Encoders) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """Return one row of LATENTS for each clip, without its shard, and the tensors of those that are ok.

    A clip whose frames cannot be had is `failed` with the reason, and has no entry in the tensors.
    """
    settings = encoders.settings
    asked = [
        {
            "path": str(local_file(encoders.source, clip["uri"], clip["video"], encoders.cache)),
            "start_pts": clip["start_pts"],
            "end_pts": clip["end_pts"],
            "frames": settings.frames,
            "stride_frames": settings.stride_frames,
            "height": settings.height,
            "width": settings.width,
        }
        for clip in clips
    ]
    rows, captions = [], []
    latents: list[torch.Tensor] = []
    for clip, result in zip(clips, encoders.fence.map("clip_frames", asked), strict=True):
        row = {key: clip[key] for key in _CARRIED}
        row |= {"status": result["status"], "reason": result.get("reason")}
        if result["status"] == "ok":
            latent = encoders.vae.encode(to_pixels(result["frames"])).half().contiguous()
            row |= {
                "crop_top": result["crop_top"],
                "crop_left": result["crop_left"],
                "stride_frames": settings.stride_frames,
                "frames": settings.frames,
                "row": len(latents),
                "sha256": hashlib.sha256(latent.numpy().tobytes()).hexdigest(),
            }
            captions.append(clip["text"])
            latents.append(latent)
        rows.append(row)
    if not latents:
        return rows, {}
    return rows, {"latents": torch.stack(latents), **_text_tensors(encoders.text, captions)}


@task(task_run_name="encode {number}", retries=1)
def encode_shard(number: int, clips: list[dict], encoders: Encoders, product: Path) -> list[dict]:
    """Encode one shard of clips, unless it is there from an earlier attempt."""
    shard = product / f"shard-{number:05d}.safetensors"
    rows_file = shard.with_suffix(".json")
    if not rows_file.exists():
        rows, tensors = encode_clips(clips, encoders)
        if tensors:
            with resume.whole(shard) as aside:
                save_file(tensors, aside, metadata=encoders.made_by)
        # the rows come last: a shard without them is made again
        with resume.whole(rows_file) as aside:
            aside.write_text(json.dumps([row | {"shard": shard.name if "row" in row else None} for row in rows]))
    return json.loads(rows_file.read_text())


def encode_all(
    source: str,
    clips: Path,
    captions: Path,
    out: Path,
    report: Path,
    latents: LatentSettings,
    vae: VaeSettings,
    text: TextSettings,
    fence: FenceSettings,
) -> Account:
    """Encode every clip that has a caption, shard by shard, into `out`.

    Raises:
        ValueError: too many clips failed, or none is left.
    """
    captioned = {
        row["clip"]: row
        for row in manifest.ok(manifest.read_rows(captions / manifest.CAPTION_TABLE, manifest.CAPTIONS))
    }
    todo = [
        row
        | {
            "clip": row["shot"],
            "captioner": captioned[row["shot"]]["captioner"],
            "text": captioned[row["shot"]]["text"],
        }
        for row in manifest.ok(manifest.read_rows(clips / manifest.CLIP_TABLE, manifest.CLIPS))
        if row["shot"] in captioned
    ]
    frozen_vae, frozen_text = load_vae(vae), TextEncoder(text)
    run = {
        "latents": latents.model_dump(),
        "vae": frozen_vae.sha256,
        "text": frozen_text.sha256,
        "clips": [[row["clip"], row["text"]] for row in todo],
    }
    work = resume.open_work(out, run)
    product = work / "product"
    product.mkdir(exist_ok=True)
    rows, started = [], time.monotonic()
    with Fence(fence) as opened:
        encoders = Encoders(frozen_vae, frozen_text, latents, opened, source, CACHE)
        for start in range(0, len(todo), latents.shard_clips):
            shard = todo[start : start + latents.shard_clips]
            rows += encode_shard(start // latents.shard_clips, shard, encoders, product)
            seconds = time.monotonic() - started
            log.info(
                "%d of %d clips encoded, %.0f per second, %.0f s left",
                len(rows),
                len(todo),
                len(rows) / seconds,
                seconds * (len(todo) - len(rows)) / len(rows),
            )
    account = manifest.settle("clips", captioned, rows, "clip")
    manifest.check_failures(account, latents.max_failed_fraction, "latents.max_failed_fraction")
    save_file(_text_tensors(frozen_text, [""]), product / NULL_TEXT, metadata=encoders.made_by)
    manifest.write_rows(product / "latents.parquet", rows, manifest.LATENTS)
    for rows_file in product.glob("shard-*.json"):
        rows_file.unlink()
    manifest.write_report(report, account)
    resume.finish(product, out)
    resume.discard_work(out)
    return account


def _text_tensors(encoder: TextEncoder, captions: list[str]) -> dict[str, torch.Tensor]:
    text = encoder.encode(captions, cut=True)
    return {
        "tokens": text.tokens_BLE.half().contiguous(),
        "mask": text.mask_BL.contiguous(),
        "pooled": text.pooled_BE.half().contiguous(),
    }
