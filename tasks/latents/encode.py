"""Stage latents: encode every captioned clip once, frames by the frozen VAE, the caption by the frozen text encoder.

`OUT/shard-00000.safetensors` holds one entry for each clip of the shard: `latents` (frames, C, h, w), `tokens` (L, E),
`mask` (L,), `pooled` (E,), as `stiv_model/latents/shard_files.py` lays them out; its metadata carries the hashes of the
VAE and the text encoder that made it, and the loader refuses a mixture. `OUT/latents.parquet` has one row per clip.
`OUT/encoders.json` says where the encoders are.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from stiv_model.encoders import devices
from stiv_model.encoders.provenance import write as write_encoders
from stiv_model.encoders.text import TextEncoder
from stiv_model.encoders.vae import Vae
from stiv_model.encoders.vae import load as load_vae
from stiv_model.latents import shard_files
from stiv_model.latents.folder import TABLE
from stiv_model.latents.shard_files import TEXT_SHA256, text_sha256
from stiv_model.settings import NULL_TEXT, Device, TextSettings, VaeSettings
from tasks.latents.settings import LatentSettings
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import DECIDE_NOTHING, SandboxSettings
from tasks.storage import atomic, queries, reuse, shards, tables
from tasks.storage.object_cache import ObjectCache
from tasks.storage.shards import Shard, Work
from tasks.storage.stage import Joined, Stage
from tasks.videos import sources

log = logging.getLogger(__name__)

_CARRIED = (
    *("clip", "video", "uri", "licence", "source_url"),
    *("captioner", "text", "aesthetic", "motion", "width", "height"),
)
_SAID = ("captioner", "text")
_OF_CLIP = (
    *(name for name in _CARRIED if name not in _SAID),
    *("start_pts", "end_pts", "repairs"),
)
_DECODED_AT_ONCE = 8
"""Clips of a shard whose frames are in memory at a time: 40 frames of 512 by 512 pixels are 31 MB."""
_OF_FRAMES = ("crop_top", "crop_left", "stride_frames", "frames", "sha256", "text_sha256")

Tensors = dict[str, torch.Tensor]
"""What is reusable of one clip: its latents and its text features; or of several, one entry for each."""


class FrameSource(NamedTuple):
    """Where the frames of clips come from, and which they are."""

    source: str
    """Folder, bucket or list of raw videos."""
    settings: LatentSettings
    sandbox: Sandbox
    cache: ObjectCache
    """Where objects of a bucket are kept."""


class Encoding(NamedTuple):
    """Which encoders make the latents."""

    vae: VaeSettings
    text: TextSettings
    device: Device
    """Which decides nothing but by rounding."""
    threads: int
    """Of torch: the last bits of its sums depend on their number, and a worker of Ray would have others."""


class Encoders(NamedTuple):
    """The frozen networks."""

    vae: Vae
    text: TextEncoder

    @property
    def made_by(self) -> dict[str, str]:
        return {"vae_sha256": self.vae.sha256, "text_sha256": self.text.sha256}


_lent = threading.Lock()


@contextmanager
def encoders(encoding: Encoding) -> Iterator[Encoders]:
    """Lend the encoders of this process to one thread at a time; they are loaded once.

    Torch spreads what one thread computes over the cores, and two threads may not share a tokenizer. What else a
    shard takes, above all its decoding in the sandbox, goes on beside it.

    Raises:
        FileNotFoundError, ValueError, OSError: as `TextEncoder` and `vae.load` say.
    """
    with _lent:
        if torch.get_num_threads() != encoding.threads:
            torch.set_num_threads(encoding.threads)
        yield _load(encoding.vae, encoding.text, encoding.device)


@lru_cache(maxsize=1)
def _load(vae: VaeSettings, text: TextSettings, device: Device) -> Encoders:
    devices.check(device, "devices.encoders")
    return Encoders(load_vae(vae, device), TextEncoder(text, device))


def encode_clips(
    clips: list[dict[str, Any]], frames: FrameSource, encoding: Encoding, reusable: Path
) -> tuple[list[dict[str, Any]], Tensors]:
    """Return one row of LATENTS for each clip, without its shard, and the tensors of those that are ok.

    A clip whose frames cannot be had is `failed` with the reason, and has no entry in the tensors.

    Args:
        clips: rows of CLIPS with `captioner` and `text`.
        reusable: folder of an earlier run with the same settings, encoders and code.
    """
    reused = find_reusable(reusable, clips)
    new = [clip for clip in clips if clip["clip"] not in reused]
    results: dict[str, dict[str, Any]] = {}
    for clip, result in zip(new, _frames_of(new, frames), strict=True):
        if result["status"] == "ok":  # frames go at once: those of a whole shard are gigabytes
            with encoders(encoding) as lent:
                result["latent"] = lent.vae.submit(result.pop("frames")).result()
        results[clip["clip"]] = result
    rows: list[dict[str, Any]] = []
    parts: list[Tensors] = []
    with encoders(encoding) as lent:
        told = [clip["text"] for clip in new if results[clip["clip"]]["status"] == "ok"]
        texts = iter([*_text_of(told, lent.text)])
    for clip in clips:
        row = {key: clip[key] for key in _CARRIED}
        if clip["clip"] in reused:
            before, tensors = reused[clip["clip"]]
            row |= {"status": "ok", "reason": None, "row": len(parts)} | {name: before[name] for name in _OF_FRAMES}
            parts.append(tensors)
        else:
            result = results[clip["clip"]]
            row |= {"status": result["status"], "reason": result.get("reason")}
            if result["status"] == "ok":
                latent, text = result["latent"], next(texts)
                row |= {
                    "crop_top": result["crop_top"],
                    "crop_left": result["crop_left"],
                    "stride_frames": frames.settings.stride_frames,
                    "frames": frames.settings.frames,
                    "row": len(parts),
                    "sha256": hashlib.sha256(latent.numpy().tobytes()).hexdigest(),
                    "text_sha256": _text_sha256(text),
                }
                parts.append({"latents": latent} | text)
        rows.append(row)
    if not parts:
        return rows, {}
    return rows, {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def find_reusable(reusable: Path, clips: list[dict[str, Any]]) -> dict[str, tuple[dict[str, Any], Tensors]]:
    """Return, of the clips that an earlier run has encoded with the same text, row and tensors by name.

    Args:
        reusable: folder with the earlier run's table and the shards that it speaks of, if there was one.
    """
    table = reusable / TABLE
    if not table.exists():
        return {}
    tables.check_columns(table, tables.LATENTS)
    texts = {clip["clip"]: clip["text"] for clip in clips}
    rows = pq.read_table(table, filters=pc.field("clip").isin(list(texts))).to_pylist()
    same = (row for row in tables.ok(rows) if row["text"] == texts[row["clip"]])
    return {row["clip"]: (row, tensors) for row in same if (tensors := _reusable_tensors(reusable, row)) is not None}


def _reusable_tensors(reusable: Path, row: dict[str, Any]) -> Tensors | None:
    """Return a clip's tensors, None if their bytes went bad since they were written."""
    tensors = shard_files.Shard(reusable / row["shard"]).clip(row["row"])
    latent = hashlib.sha256(tensors["latents"].numpy().tobytes()).hexdigest()
    text_hash = _text_sha256({name: tensor for name, tensor in tensors.items() if name != "latents"})
    if (latent, text_hash) == (row["sha256"], row["text_sha256"]):
        return tensors
    log.warning("%s: row %d went bad since it was written: it is encoded again", row["shard"], row["row"])
    return None


def _frames_of(clips: list[dict[str, Any]], frames: FrameSource) -> Iterator[dict[str, Any]]:
    """Yield what came of decoding each clip, in order, a few of them in memory at a time."""
    for first in range(0, len(clips), _DECODED_AT_ONCE):
        with ExitStack() as lent:
            decoded = _decode(clips[first : first + _DECODED_AT_ONCE], frames, lent)
        yield from decoded


def _decode(clips: list[dict[str, Any]], frames: FrameSource, lent: ExitStack) -> list[dict[str, Any]]:
    settings = frames.settings
    found = [_local(clip, frames, lent) for clip in clips]
    asked = [
        {
            "path": str(path),
            "start_pts": clip["start_pts"],
            "end_pts": clip["end_pts"],
            "repairs": clip["repairs"] or [],
            "frames": settings.frames,
            "stride_frames": settings.stride_frames,
            "height": settings.height,
            "width": settings.width,
        }
        for clip, path in zip(clips, found, strict=True)
        if isinstance(path, Path)
    ]
    results = iter(frames.sandbox.map("clip_frames", asked))
    return [next(results) if isinstance(path, Path) else {"status": "failed", "reason": path} for path in found]


def _local(clip: dict[str, Any], frames: FrameSource, lent: ExitStack) -> Path | str:
    """Return the clip's raw video, held by `lent`, or the reason code if it is gone or not that of its shots."""
    try:
        return lent.enter_context(sources.lend(frames.source, clip["uri"], clip["video"], frames.cache))
    except (*sources.ABSENT, ValueError) as error:
        log.warning("%s: %s", clip["clip"], error)
        return sources.reason_of(error) if isinstance(error, OSError) else "not_found"


def _text_of(captions: list[str], encoder: TextEncoder) -> Iterator[Tensors]:
    """Give the text tensors of each caption."""
    if captions:
        tensors = _text_tensors(encoder, captions)
        yield from ({name: tensor[row] for name, tensor in tensors.items()} for row in range(len(captions)))


def _text_tensors(encoder: TextEncoder, captions: list[str]) -> Tensors:
    text = encoder.encode(captions, cut=True)
    return {
        "tokens": text.tokens_BLE.half().contiguous(),
        "mask": text.mask_BL.contiguous(),
        "pooled": text.pooled_BE.half().contiguous(),
    }


def _text_sha256(tensors: Tensors) -> str:
    return text_sha256({name: tensor.numpy().data for name, tensor in tensors.items()})


def encode_shard(shard: Shard, frames: FrameSource, encoding: Encoding, reusable: Path, product: Path) -> None:
    """Encode one shard of clips into a file of `product`."""
    rows, tensors = encode_clips(shard.read(), frames, encoding, reusable)
    file = product / f"{shard.path.stem}.safetensors"
    if tensors:
        with encoders(encoding) as lent:
            made_by = lent.made_by
        with atomic.atomic_write(file) as tmp_path:
            shard_files.write(tmp_path, tensors, made_by)
    placed = [row | {"shard": file.name if "row" in row else None} for row in rows]
    shard.write(placed, tables.LATENTS)  # last: with it, the shard is done


class Latents(Stage):
    """One row of tables.LATENTS per clip that has a caption, in the order of the clips, and the shards of tensors.

    What an earlier run has encoded is reused within each shard, so that a shard's file is that of a run on all.

    Args:
        source: folder, bucket or list of raw videos.
        clips: folder of stage clips.
        captions: folder of stage captions.
        settings: which frames.
        vae, text: the frozen encoders.
        open_sandbox: gives the sandbox that files are opened in.
        device: of the encoders.
        cache: where objects of a bucket are kept.
    """

    name, verb, unit = "latents", "encode", "clips"
    schema = pa.schema([*(tables.CLIPS.field(name) for name in _OF_CLIP), *(tables.CAPTIONS.field(n) for n in _SAID)])

    def __init__(
        self,
        source: str,
        clips: Path,
        captions: Path,
        settings: LatentSettings,
        vae: VaeSettings,
        text: TextSettings,
        sandbox: SandboxSettings,
        open_sandbox: Callable[[SandboxSettings], AbstractContextManager[Sandbox]] = Sandbox,
        device: Device = "cpu",
        cache: ObjectCache = sources.UNLIMITED,
    ) -> None:
        self.cache = cache
        self.clips, self.captions = clips / tables.CLIP_TABLE, captions / tables.CAPTION_TABLE
        self.source, self.settings, self.sandbox, self.open_sandbox = source, settings, sandbox, open_sandbox
        self.encoding = Encoding(vae, text, device, torch.get_num_threads())

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        for table, schema in ((self.clips, tables.CLIPS), (self.captions, tables.CAPTIONS)):
            tables.require(table, schema)
        columns = ", ".join([*(f"clips.{name}" for name in _OF_CLIP), *(f"captions.{name}" for name in _SAID)])
        query = f"""
            SELECT {columns} FROM {queries.scan([self.clips], numbered=True)} AS clips
            JOIN {queries.scan([self.captions])} AS captions USING (clip)
            WHERE clips.status = 'ok' AND captions.status = 'ok' ORDER BY clips.file_row_number"""
        with queries.connect(scratch) as connection:
            yield from queries.batches(connection, query, self.schema)

    def decides(self) -> dict[str, Any]:
        with encoders(self.encoding) as lent:
            hashes = {"vae": lent.vae.sha256, "text": lent.text.sha256}
        precision = {"vae": self.encoding.vae.precision, "text": self.encoding.text.precision}
        settings = self.settings.model_dump(exclude={"shard_clips", "max_failed_fraction"})
        return {"latents": settings, "precision": precision, **hashes}

    def inputs(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "clips": atomic.sha256_file(self.clips),
            "captions": atomic.sha256_file(self.captions),
            "sandbox": self.sandbox.model_dump(exclude=DECIDE_NOTHING),
            "shard_clips": self.settings.shard_clips,
        }

    def shard_size(self) -> float:
        return self.settings.shard_clips

    def save_reusable(self, given: Path, out: Path, reusable: Path) -> None:
        reuse.save_reusable([out / TABLE, *sorted(out.glob("shard-*.safetensors"))], reusable)

    @contextmanager
    def worker(self, product: Path, reusable: Path) -> Iterator[Callable[[Shard], None]]:
        with self.open_sandbox(self.sandbox) as opened:
            frames = FrameSource(self.source, self.settings, opened, self.cache)
            yield partial(encode_shard, frames=frames, encoding=self.encoding, reusable=reusable, product=product)

    def join(self, work: Work, product: Path) -> Joined:
        table = product / TABLE
        queries.write(table, shards.joined(work, tables.LATENTS), tables.LATENTS)
        captioned = tables.usable(self.captions, tables.CAPTIONS, ["clip"])
        account = queries.settle("clips", captioned, queries.outcomes(table, "clip"), "clip")
        limit, place = self.settings.max_failed_fraction, "latents.max_failed_fraction"
        tables.check_failures(account, limit, place, queries.named(table, "clip"), "clip")
        with encoders(self.encoding) as lent:
            null, made_by = _text_tensors(lent.text, [""]), lent.made_by
        null_sha256 = _text_sha256({name: tensor[0] for name, tensor in null.items()})
        shard_files.write(product / NULL_TEXT, null, made_by | {TEXT_SHA256: null_sha256})
        write_encoders(product, self.encoding.vae, self.encoding.text, made_by)
        return Joined((account,))
