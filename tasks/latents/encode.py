"""Stage latents: encode every captioned clip once, frames by the frozen VAE, the caption by the frozen text encoder.

`OUT/part-00000.safetensors` holds one entry for each clip of the part's videos: `latents` (frames, C, h, w), `tokens`
(L, E), `mask` (L,), `pooled` (E,), as `stiv_model/latents/shard_files.py` lays them out; its metadata carries the
hashes of the VAE and the text encoder that made it, and the loader refuses a mixture. `OUT/latents.parquet` has one row
per clip, and `OUT/part_hashes.json` the hash of each part. `OUT/encoders.json` says where the encoders are.
"""

import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import groupby
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from stiv_model.encoders.devices import Pending
from stiv_model.encoders.provenance import write as write_encoders
from stiv_model.latents import shard_files
from stiv_model.latents.folder import TABLE
from stiv_model.latents.shard_files import TEXT_PARTS, TEXT_SHA256
from stiv_model.settings import NULL_TEXT, Device, TextSettings, VaeSettings
from tasks.latents import captioned
from tasks.latents.encoders import Encoding, Facts, Tensors, encoders, entry_bytes, facts, text_hash
from tasks.latents.encoders import text_tensors as tensors_of
from tasks.latents.frames import Decoded, FrameSource, decoded
from tasks.latents.settings import LatentSettings
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import DECIDE_NOTHING, SandboxSettings
from tasks.storage import atomic, parts, queries, reuse, shards, tables
from tasks.storage.object_cache import ObjectCache
from tasks.storage.shards import Shard, Work
from tasks.storage.stage import Joined, Stage
from tasks.videos import sources

log = logging.getLogger(__name__)

SUFFIX = ".safetensors"

_CARRIED = (
    *("clip", "video", "uri", "licence", "source_url"),
    *("captioner", "text", "aesthetic", "motion", "width", "height", "category", "category_weight"),
)
_CATEGORY = ("category", "category_weight")
_SAID = ("captioner", "text")
_OF_CLIP = (
    *(name for name in _CARRIED if name not in (*_SAID, *_CATEGORY)),
    *("start_pts", "end_pts", "repairs"),
)
_OF_FRAMES = ("crop_top", "crop_left", "stride_frames", "frames", "sha256", "text_sha256")
_SAME = ("clip", "text")
"""What a clip's tensors are made of, beside the settings: the id of a clip says which frames."""
_PART = "part"  # column: number of the part that a clip belongs to
_ON_THE_WAY = 8
"""Clips that a GPU is still at work on while more are sent to it."""


class Encoded(NamedTuple):
    """What became of a clip: the columns of LATENTS that say so, and its tensors if it is ok."""

    row: dict[str, Any]
    tensors: Tensors


def encode_clips(clips: list[dict[str, Any]], found: Decoded, encoding: Encoding) -> Iterator[Encoded]:
    """Give what becomes of each clip, in order, while a GPU encodes some ahead.

    A clip whose frames cannot be had is `failed` with the reason.

    Args:
        clips: rows of `Latents.schema`.
        found: what comes of decoding them.
    """
    told = _texts([clip["text"] for clip in clips], encoding)
    waiting: deque[tuple[dict[str, Any], Pending | None, Tensors]] = deque()
    for result, text in zip(found, told, strict=True):
        latent = None
        if result["status"] == "ok":
            with encoders(encoding) as lent:
                latent = lent.vae.submit(result.pop("frames"))
        waiting.append((result, latent, text))
        if len(waiting) > _ON_THE_WAY:
            yield _encoded(*waiting.popleft())
    while waiting:
        yield _encoded(*waiting.popleft())


def _texts(captions: list[str], encoding: Encoding) -> list[Tensors]:
    if not captions:
        return []
    with encoders(encoding) as lent:
        tensors = tensors_of(lent.text, captions)
    return [{name: tensor[row] for name, tensor in tensors.items()} for row in range(len(captions))]


def _encoded(result: dict[str, Any], latent: Pending | None, text: Tensors) -> Encoded:
    row = {"status": result["status"], "reason": result.get("reason")}
    if latent is None:
        return Encoded(row, {})
    tensors = {"latents": latent.result()} | text
    places = {"crop_top": result["crop_top"], "crop_left": result["crop_left"]}
    hashes = {"sha256": _latent_hash(tensors), "text_sha256": text_hash(text)}
    return Encoded(row | places | hashes, tensors)


def _latent_hash(tensors: Tensors) -> str:
    return hashlib.sha256(tensors["latents"].numpy().data).hexdigest()


def find_reusable(reusable: Path, clips: list[dict[str, Any]]) -> dict[str, Encoded]:
    """Return, of the clips that an earlier run has encoded with the same text, what it made of them.

    Args:
        reusable: folder with the earlier run's table and the parts that it speaks of, if there was one.
    """
    table = reusable / TABLE
    if not table.exists():
        return {}
    tables.check_columns(table, tables.LATENTS)
    texts = {clip["clip"]: clip["text"] for clip in clips}
    of_range = (pc.field("clip") >= min(texts)) & (pc.field("clip") <= max(texts))
    rows = tables.ok(pq.read_table(table, filters=of_range).to_pylist())
    same = [row for row in rows if row["text"] == texts.get(row["clip"])]
    files = {name: shard_files.Shard(reusable / name) for name in {row["shard"] for row in same}}
    return {row["clip"]: found for row in same if (found := _read_reusable(files[row["shard"]], row)) is not None}


def _read_reusable(file: shard_files.Shard, row: dict[str, Any]) -> Encoded | None:
    """Return what was made of a clip, None if its bytes went bad since they were written."""
    tensors = file.clip(row["row"])
    text = {name: tensors[name] for name in TEXT_PARTS}
    if (_latent_hash(tensors), text_hash(text)) == (row["sha256"], row["text_sha256"]):
        return Encoded({"status": "ok", "reason": None} | {name: row[name] for name in _OF_FRAMES}, tensors)
    log.warning("%s: row %d went bad since it was written: it is encoded again", row["shard"], row["row"])
    return None


class _Notes(NamedTuple):
    """What a shard leaves beside its table."""

    sha256: dict[str, str]
    """Of the files of its parts, by name."""
    seconds: float
    """That it took to encode and write its clips."""
    waited: float
    """Of these, how long there were no frames."""


def _notes_of(shard: Shard) -> Path:
    return shard.path.with_suffix(".json")


def encode_shard(
    shard: Shard, frames: FrameSource, encoding: Encoding, made_by: dict[str, str], reusable: Path, product: Path
) -> None:
    """Encode one shard of clips, rows of `Latents.schema`, and write the files of its parts.

    Args:
        made_by: hashes of the encoders that the stage is for.
        reusable: folder of an earlier run, from which clips are taken that it has encoded.
        product: folder that becomes the output.

    Raises:
        ValueError: this machine has other encoders.
    """
    clips = shard.read()
    before = find_reusable(reusable, clips)
    new = [clip for clip in clips if clip["clip"] not in before]
    if new:
        _refuse_others(encoding, made_by)
    rows: list[dict[str, Any]] = []
    sha256: dict[str, str] = {}
    began = monotonic()
    with decoded(new, frames) as found:
        made = encode_clips(new, found, encoding)
        for part, of_part in groupby(clips, key=lambda clip: int(clip[_PART])):
            file = product / parts.file_name(part, SUFFIX)
            own = [(clip, before.pop(clip["clip"]) if clip["clip"] in before else next(made)) for clip in of_part]
            rows += _placed(own, file.name, frames.settings)
            if tensors := _together([one.tensors for _, one in own if one.tensors]):
                with atomic.atomic_write(file) as tmp_path:
                    shard_files.write(tmp_path, tensors, made_by)
                    sha256[file.name] = atomic.sha256_file(tmp_path)
            else:
                file.unlink(missing_ok=True)  # of an attempt that was killed
    notes = _Notes(sha256, monotonic() - began, found.waited)
    with atomic.atomic_write(_notes_of(shard)) as tmp_path:
        tmp_path.write_text(json.dumps(notes._asdict()))
    shard.write(rows, tables.LATENTS)  # last: with it, the shard is done


def _refuse_others(encoding: Encoding, made_by: dict[str, str]) -> None:
    with encoders(encoding) as lent:
        if lent.made_by != made_by:
            raise ValueError(
                f"vae.source {encoding.vae.source} and text.source {encoding.text.source} are {lent.made_by} on this "
                f"machine, and {made_by} where the stage was started: give all machines the same files"
            )


def _placed(own: list[tuple[dict[str, Any], Encoded]], file: str, settings: LatentSettings) -> Iterator[dict[str, Any]]:
    """Give the rows of LATENTS of one part's clips."""
    place = 0
    for clip, one in own:
        row = {name: clip[name] for name in _CARRIED} | one.row
        if one.tensors:
            row |= {"stride_frames": settings.stride_frames, "frames": settings.frames, "shard": file, "row": place}
            place += 1
        yield row


def _together(entries: list[Tensors]) -> Tensors:
    """Return the tensors of several clips as one of each name; those of the clips go while it is filled."""
    if not entries:
        return {}
    out = {name: torch.empty((len(entries), *tensor.shape), dtype=tensor.dtype) for name, tensor in entries[0].items()}
    for place, entry in enumerate(entries):
        for name, tensor in out.items():
            tensor[place] = entry.pop(name)
    return out


class Latents(Stage):
    """One row of tables.LATENTS per clip that has a caption, in the order of the clips' videos, and parts of tensors.

    Args:
        source: folder, bucket or list of raw videos.
        clips: folder of stage clips.
        captions: folder of stage captions.
        settings: which frames.
        vae, text: the frozen encoders.
        open_sandbox: gives the sandbox that files are opened in.
        device: of the encoders.
        cache: where objects of a bucket are kept.
        categories: folder of stage categories; None leaves those of the clips null.
    """

    name, verb, unit = "latents", "encode", "clips"
    schema = pa.schema(
        [
            *(tables.CLIPS.field(name) for name in _OF_CLIP),
            *(tables.CAPTIONS.field(name) for name in _SAID),
            *(tables.LATENTS.field(name) for name in _CATEGORY),
            (_PART, pa.int64()),
        ]
    )
    together = _PART

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
        categories: Path | None = None,
    ) -> None:
        self.clips, self.captions = clips / tables.CLIP_TABLE, captions / tables.CAPTION_TABLE
        self.source, self.settings, self.sandbox, self.open_sandbox = source, settings, sandbox, open_sandbox
        self.encoding, self.cache = Encoding(vae, text, device), cache
        self.categories = categories / tables.CATEGORY_TABLE if categories else None
        self._parts = 1  # chosen by `given`

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        self._parts = self._choose_parts(reusable)
        clips = captioned.clips(self.clips, self.captions, _OF_CLIP, _SAID)
        for batch in captioned.with_categories(clips, self.categories) if self.categories else clips:
            numbers = pa.array(parts.numbers(batch["clip"], self._parts))
            without = (
                () if self.categories else [pa.nulls(len(batch), self.schema.field(name).type) for name in _CATEGORY]
            )
            yield pa.RecordBatch.from_arrays([*batch.columns, *without, numbers], schema=self.schema)

    @property
    def _facts(self) -> Facts:
        return facts(self.encoding.vae, self.encoding.text)

    def _choose_parts(self, reusable: Path) -> int:
        clips = videos = 0
        last = None
        for batch in captioned.clips(self.clips, self.captions, ("clip", "video"), ()):
            clips += len(batch)
            for video, _ in groupby(batch["video"].to_pylist()):
                videos, last = videos + (video != last), video
        each = entry_bytes(self.encoding, self.settings)
        at_least = max(1, ceil(clips * each / self.settings.part_bytes))
        if at_least > parts.MOST:
            raise ValueError(
                f"latents.part_bytes is {self.settings.part_bytes}, but {clips} clips of {each} bytes are more than "
                f"{parts.MOST} parts of that size: set it to {ceil(clips * each / parts.MOST)} or more"
            )
        return parts.choose(videos, parts.count_before([reusable]), at_least)

    def decides(self) -> dict[str, Any]:
        precision = {"vae": self.encoding.vae.precision, "text": self.encoding.text.precision}
        settings = self.settings.model_dump(exclude={"shard_clips", "part_bytes", "max_failed_fraction"})
        return {"latents": settings, "precision": precision, **self._facts.made_by}

    def inputs(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "clips": atomic.sha256_file(self.clips),
            "captions": atomic.sha256_file(self.captions),
            "categories": atomic.sha256_file(self.categories) if self.categories else None,
            "sandbox": self.sandbox.model_dump(exclude=DECIDE_NOTHING),
            "shard_clips": self.settings.shard_clips,
            "parts": self._parts,
        }

    def shard_size(self) -> float:
        return self.settings.shard_clips

    def reuse(self, given: Path, reusable: Path, reused: Path) -> bool:
        """Take over whole parts whose clips are the same with the same texts; what else is said of them is of now."""
        table = reusable / TABLE
        if not table.exists() or parts.count_before([reusable]) != self._parts:
            return False
        tables.check_columns(table, tables.LATENTS)
        of = partial(parts.numbers, count=self._parts)
        now = captioned.digests(shards.read_given(given, _SAME), of)
        before = captioned.digests(_made(table, _SAME), of)
        same = np.array([part for part, digest in now.items() if before.get(part) == digest], np.int64)
        if not len(same):
            return False
        placed = shards.placed(tables.LATENTS)
        kept = captioned.of_parts(shards.read_given(given, (*_CARRIED, shards.PLACE)), of, same)
        made = captioned.of_parts(_made(table), of, same)
        queries.write(reused, captioned.beside(kept, made, placed), placed)
        return True

    def save_reusable(self, given: Path, out: Path, reusable: Path) -> None:
        files = [out / TABLE, out / parts.FILE, out / parts.HASHES, *parts.files(out, SUFFIX)]
        reuse.save_reusable(files, reusable, parts.read(out).sha256)

    @contextmanager
    def worker(self, product: Path, reusable: Path) -> Iterator[Callable[[Shard], None]]:
        with self.open_sandbox(self.sandbox) as opened:
            frames = FrameSource(self.source, self.settings, opened, self.cache)
            yield partial(
                encode_shard,
                frames=frames,
                encoding=self.encoding,
                made_by=self._facts.made_by,
                reusable=reusable,
                product=product,
            )

    def join(self, work: Work, product: Path) -> Joined:
        table = product / TABLE
        queries.write(table, shards.joined(work, tables.LATENTS), tables.LATENTS)
        wanted = tables.usable(self.captions, tables.CAPTIONS, ["clip"])
        account = queries.settle("clips", wanted, queries.outcomes(table, "clip"), "clip")
        limit, place = self.settings.max_failed_fraction, "latents.max_failed_fraction"
        tables.check_failures(account, limit, place, queries.named(table, "clip"), "clip")
        self._finish_parts(work, product)
        self._write_null_text(product)
        return Joined((account,))

    def _finish_parts(self, work: Work, product: Path) -> None:
        """Link the parts that are reused, and write which parts there are."""
        notes = [_Notes(**json.loads(_notes_of(shard).read_text())) for shard in work.parts]
        sha256 = {name: digest for note in notes for name, digest in note.sha256.items()}
        known = parts.read(work.reusable).sha256 if work.reused else {}
        for name in sorted(_names(queries.read([work.reused], ["shard"])) if work.reused else ()):
            atomic.link_anew(work.reusable / name, product / name)
            sha256[name] = known[name]
        parts.write(product, self._parts, sha256)
        seconds, waited = sum(note.seconds for note in notes), sum(note.waited for note in notes)
        if seconds:
            log.info("encoding waited for frames for %.0f %% of %.4g s", 100 * waited / seconds, seconds)

    def _write_null_text(self, product: Path) -> None:
        made_by, _, null = self._facts
        null_sha256 = text_hash({name: tensor[0] for name, tensor in null.items()})
        shard_files.write(product / NULL_TEXT, null, made_by | {TEXT_SHA256: null_sha256})
        write_encoders(product, self.encoding.vae, self.encoding.text, made_by)


def _made(table: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Give the rows of an earlier run's table that are ok."""
    for batch in queries.read([table], None if columns is None else ["status", *columns]):
        found = batch.filter(pc.equal(batch["status"], "ok"))
        yield found if columns is None else found.select(list(columns))


def _names(batches: Iterable[pa.RecordBatch]) -> set[str]:
    return {name for batch in batches for name in pc.unique(batch.column(0)).to_pylist()}
