"""Encode every captioned clip once: frames through the frozen VAE, its caption through the frozen text encoder.

`OUT/shard-00000.safetensors` holds, for each clip of the shard, `latents` (frames, C, h, w), `tokens` (L, E), `mask`
(L,), `pooled` (E,); its metadata carries the hashes of the VAE and the text encoder that made it, and the loader
refuses a mixture. `OUT/latents.parquet` has one row per clip. `OUT/encoders.json` says where the encoders are.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from prefect import task
from safetensors import safe_open
from safetensors.torch import save_file

from stiv_model.encoders.pixels import to_pixels
from stiv_model.encoders.provenance import write as write_encoders
from stiv_model.encoders.text import TextEncoder
from stiv_model.encoders.vae import Vae
from stiv_model.encoders.vae import load as load_vae
from stiv_model.latents.dataset import NULL_TEXT
from stiv_model.latents.shard_files import TEXT_SHA256, text_sha256
from stiv_model.settings import TextSettings, VaeSettings
from tasks.latents.settings import LatentSettings
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import SandboxSettings
from tasks.storage import atomic, reuse, shards, tables
from tasks.storage.tables import Account
from tasks.videos.sources import CACHE, local_file

log = logging.getLogger(__name__)

_CARRIED = (
    *("clip", "video", "uri", "licence", "source_url"),
    *("captioner", "text", "aesthetic", "motion", "width", "height"),
)
_OF_FRAMES = ("crop_top", "crop_left", "stride_frames", "frames", "sha256", "text_sha256")


class Kept:
    """Latents of an earlier run with the same settings, encoders and code; none if there was none.

    Args:
        folder: with the table and the shards that it speaks of.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        table = folder / "latents.parquet"
        rows = tables.ok(list(shards.rows(table, tables.LATENTS))) if table.exists() else []
        self.rows = {(row["clip"], row["text"]): row for row in rows}

    def find(self, clip: str, text: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        """Return a clip's row and tensors, None if it was not encoded with this text, or its bytes went bad since."""
        row = self.rows.get((clip, text))
        if row is None:
            return None
        with safe_open(self.folder / row["shard"], "pt") as shard:
            tensors = {name: shard.get_slice(name)[row["row"]] for name in shard.keys()}  # noqa: SIM118 (no mapping)
        latent = hashlib.sha256(tensors["latents"].numpy().tobytes()).hexdigest()
        text_hash = _text_sha256({name: tensor for name, tensor in tensors.items() if name != "latents"})
        if (latent, text_hash) != (row["sha256"], row["text_sha256"]):
            log.warning("%s: row %d went bad since it was written: it is encoded again", row["shard"], row["row"])
            return None
        return row, tensors


class Encoders(NamedTuple):
    """The frozen networks, and the frames they are given."""

    vae: Vae
    text: TextEncoder
    settings: LatentSettings
    sandbox: Sandbox
    source: str
    cache: Path
    kept: Kept

    @property
    def made_by(self) -> dict[str, str]:
        return {"vae_sha256": self.vae.sha256, "text_sha256": self.text.sha256}


def encode_clips(
    clips: list[dict[str, Any]], encoders: Encoders
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Return one row of LATENTS for each clip, without its shard, and the tensors of those that are ok.

    A clip whose frames cannot be had is `failed` with the reason, and has no entry in the tensors.
    """
    taken = {clip["clip"]: found for clip in clips if (found := encoders.kept.find(clip["clip"], clip["text"]))}
    new = [clip for clip in clips if clip["clip"] not in taken]
    results = dict(zip((clip["clip"] for clip in new), _frames_of(new, encoders), strict=True))
    texts = _text_of([clip["text"] for clip in new if results[clip["clip"]]["status"] == "ok"], encoders.text)
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, torch.Tensor]] = []
    for clip in clips:
        row = {key: clip[key] for key in _CARRIED}
        if clip["clip"] in taken:
            before, tensors = taken[clip["clip"]]
            row |= {"status": "ok", "reason": None, "row": len(parts)} | {name: before[name] for name in _OF_FRAMES}
            parts.append(tensors)
        else:
            result = results[clip["clip"]]
            row |= {"status": result["status"], "reason": result.get("reason")}
            if result["status"] == "ok":
                latent = encoders.vae.encode(to_pixels(result["frames"])).half().contiguous()
                text = next(texts)
                row |= {
                    "crop_top": result["crop_top"],
                    "crop_left": result["crop_left"],
                    "stride_frames": encoders.settings.stride_frames,
                    "frames": encoders.settings.frames,
                    "row": len(parts),
                    "sha256": hashlib.sha256(latent.numpy().tobytes()).hexdigest(),
                    "text_sha256": _text_sha256(text),
                }
                parts.append({"latents": latent} | text)
        rows.append(row)
    if not parts:
        return rows, {}
    return rows, {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def _frames_of(clips: list[dict[str, Any]], encoders: Encoders) -> list[dict[str, Any]]:
    settings = encoders.settings
    found = [_local(clip, encoders) for clip in clips]
    asked = [
        {
            "path": str(path),
            "start_pts": clip["start_pts"],
            "end_pts": clip["end_pts"],
            "frames": settings.frames,
            "stride_frames": settings.stride_frames,
            "height": settings.height,
            "width": settings.width,
        }
        for clip, path in zip(clips, found, strict=True)
        if path
    ]
    results = iter(encoders.sandbox.map("clip_frames", asked))
    return [next(results) if path else {"status": "failed", "reason": "not_found"} for path in found]


def _local(clip: dict[str, Any], encoders: Encoders) -> Path | None:
    """Return the clip's raw video, None if it is gone or another one since its shots were found."""
    try:
        return local_file(encoders.source, clip["uri"], clip["video"], encoders.cache)
    except (FileNotFoundError, ValueError) as error:
        log.warning("%s: %s", clip["clip"], error)
        return None


def _text_of(captions: list[str], encoder: TextEncoder) -> Iterator[dict[str, torch.Tensor]]:
    """Give the text tensors of each caption."""
    if captions:
        tensors = _text_tensors(encoder, captions)
        yield from ({name: tensor[row] for name, tensor in tensors.items()} for row in range(len(captions)))


@task(task_run_name="encode {number}", retries=1)
def encode_shard(number: int, clips: list[dict[str, Any]], encoders: Encoders, product: Path) -> list[dict[str, Any]]:
    """Encode one shard of clips, unless it is there from an earlier attempt."""
    shard = product / f"shard-{number:05d}.safetensors"
    rows_file = shard.with_suffix(".json")
    if not rows_file.exists():
        rows, tensors = encode_clips(clips, encoders)
        if tensors:
            with atomic.atomic_write(shard) as tmp_path:
                save_file(tensors, tmp_path, metadata=encoders.made_by)
        # the rows come last: a shard without them is made again
        with atomic.atomic_write(rows_file) as tmp_path:
            tmp_path.write_text(json.dumps([row | {"shard": shard.name if "row" in row else None} for row in rows]))
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
    sandbox: SandboxSettings,
    code: str,
    run_shard: Callable[[int, list[dict[str, Any]], Encoders, Path], list[dict[str, Any]]],
) -> Account:
    """Encode every clip that has a caption, shard by shard, into `out`; what an earlier run has encoded is taken over.

    Args:
        code: a hash of the code that decides about the latents.
        run_shard: `encode_shard`, as a task of a flow or as a plain function.

    Raises:
        ValueError: too many clips failed, or none is left.
    """
    captioned = {
        row["clip"]: row for row in tables.ok(tables.read_rows(captions / tables.CAPTION_TABLE, tables.CAPTIONS))
    }
    todo = [
        row
        | {
            "clip": row["clip"],
            "captioner": captioned[row["clip"]]["captioner"],
            "text": captioned[row["clip"]]["text"],
        }
        for row in tables.ok(tables.read_rows(clips / tables.CLIP_TABLE, tables.CLIPS))
        if row["clip"] in captioned
    ]
    frozen_vae, frozen_text = load_vae(vae), TextEncoder(text)
    made_with = {
        "latents": latents.model_dump(exclude={"shard_clips", "max_failed_fraction"}),
        "vae": frozen_vae.sha256,
        "text": frozen_text.sha256,
        "code": code,
    }
    kept = reuse.folder(reuse.EARLIER, "latents", made_with)
    clips_given = [[row["clip"], row["text"]] for row in todo]
    work = atomic.open_workdir(out, made_with | {"clips": clips_given, "shard_clips": latents.shard_clips})
    product = work / "product"
    product.mkdir(exist_ok=True)
    rows, started = [], time.monotonic()
    with Sandbox(sandbox) as opened:
        encoders = Encoders(frozen_vae, frozen_text, latents, opened, source, CACHE, Kept(kept))
        for start in range(0, len(todo), latents.shard_clips):
            shard = todo[start : start + latents.shard_clips]
            rows += run_shard(start // latents.shard_clips, shard, encoders, product)
            seconds = time.monotonic() - started
            log.info(
                "%d of %d clips encoded, %.0f per second, %.0f s left",
                len(rows),
                len(todo),
                len(rows) / seconds,
                seconds * (len(todo) - len(rows)) / len(rows),
            )
    account = tables.reconcile("clips", captioned, rows, "clip")
    tables.check_failures(account, latents.max_failed_fraction, "latents.max_failed_fraction")
    null = _text_tensors(frozen_text, [""])
    null_sha256 = _text_sha256({name: tensor[0] for name, tensor in null.items()})
    save_file(null, product / NULL_TEXT, metadata=encoders.made_by | {TEXT_SHA256: null_sha256})
    write_encoders(product, vae, text, encoders.made_by)
    tables.write_rows(product / "latents.parquet", rows, tables.LATENTS)
    for rows_file in product.glob("shard-*.json"):
        rows_file.unlink()
    tables.write_report(report, account)
    atomic.finish(product, out)
    atomic.discard_workdir(out)
    reuse.save_reusable([out / "latents.parquet", *sorted(out.glob("shard-*.safetensors"))], kept)
    return account


def _text_tensors(encoder: TextEncoder, captions: list[str]) -> dict[str, torch.Tensor]:
    text = encoder.encode(captions, cut=True)
    return {
        "tokens": text.tokens_BLE.half().contiguous(),
        "mask": text.mask_BL.contiguous(),
        "pooled": text.pooled_BE.half().contiguous(),
    }


def _text_sha256(tensors: dict[str, torch.Tensor]) -> str:
    return text_sha256({name: tensor.numpy().data for name, tensor in tensors.items()})
