"""Stage views_latents: folders of views to latents that a training reads: two frames of the given view, six to be made.

An object is a clip of eight frames without text. `OUT/views.safetensors` holds the latents of those that are ok,
`OUT/latents.parquet` one row per folder, as stage latents writes them (`tasks/latents/encode.py`).
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from stiv_model.diffusion.cameras import GIVEN_FRAMES
from stiv_model.encoders.provenance import write as write_encoders
from stiv_model.latents import shard_files
from stiv_model.latents.folder import TABLE
from stiv_model.latents.shard_files import TEXT_SHA256
from stiv_model.settings import NULL_TEXT, Device, TextSettings, VaeSettings
from tasks.latents.encoders import Encoding, Tensors, encoders, facts, text_hash
from tasks.latents.settings import LatentSettings
from tasks.sandbox.pool import Sandbox
from tasks.sandbox.settings import DECIDE_NOTHING, SandboxSettings
from tasks.storage import atomic, queries, shards, tables
from tasks.storage.shards import Shard, Work
from tasks.storage.stage import Joined, Stage
from tasks.views import folders
from tasks.views.folders import PICTURES, Refused
from tasks.views.settings import ViewSettings

_SUFFIX = ".safetensors"


def read_object(folder: Path, sandbox: Sandbox, height: int, width: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the pictures of an object, uint8 RGB (7, H, W, 3), opened in the sandbox, and their height and width.

    They are upright, scaled to cover height x width and cut at their centre; what is transparent is white.

    Raises:
        Refused: with the code.
    """
    folders.check(folder)
    asked = [{"path": str(folder / name), "height": height, "width": width} for name in PICTURES]
    found = sandbox.map("picture_file", asked)
    for each in found:
        if each["status"] != "ok":
            raise Refused(each["status"], each["reason"])
    sizes = {(each["shown_height"], each["shown_width"]) for each in found}
    if len(sizes) > 1:
        raise Refused("rejected", "unlike_sizes")
    return np.stack([each["picture"] for each in found]), sizes.pop()


def encode_shard(
    shard: Shard, folder: Path, sandbox: Sandbox, encoding: Encoding, size: LatentSettings, product: Path
) -> None:
    """Read and encode one shard of objects, and write its file of latents and its table."""
    null = {name: tensor[0] for name, tensor in facts(encoding.vae, encoding.text).null.items()}
    rows: list[dict[str, Any]] = []
    made: list[torch.Tensor] = []
    file = product / f"{shard.path.stem}{_SUFFIX}"
    for given in shard.read():
        row = dict.fromkeys(tables.LATENTS.names) | {
            "clip": given["name"],
            "video": given["name"],
            "uri": given["name"],
        }
        try:
            pictures, shown = read_object(folder / given["name"], sandbox, size.height, size.width)
        except Refused as refused:
            rows.append(row | {"status": refused.status, "reason": refused.reason})
            continue
        latents = _latents(pictures, encoding)
        places = {"shard": file.name, "row": len(made), "frames": len(latents), "stride_frames": 1}
        hashes = {"sha256": hashlib.sha256(latents.numpy().data).hexdigest(), "text_sha256": text_hash(null)}
        source = {"height": shown[0], "width": shown[1], "crop_top": 0, "crop_left": 0}
        rows.append(row | source | places | hashes | {"status": "ok", "text": "", "aesthetic": 0.0})
        made.append(latents)
    if made:
        repeated: Tensors = {name: tensor[None].repeat(len(made), *[1] * tensor.ndim) for name, tensor in null.items()}
        with atomic.atomic_write(file) as tmp_path:
            shard_files.write(
                tmp_path, {"latents": torch.stack(made)} | repeated, facts(encoding.vae, encoding.text).made_by
            )
    shard.write(rows, tables.LATENTS)  # last: with it, the shard is done


def _latents(pictures: np.ndarray, encoding: Encoding) -> torch.Tensor:
    """Return the latents of an object, float16 (8, C, h, w): the given view twice, then the others."""
    with encoders(encoding) as lent:
        latents = lent.vae.submit(pictures).result()
    return torch.cat([latents[:1].expand(GIVEN_FRAMES, -1, -1, -1), latents[1:]]).contiguous()


class ViewsLatents(Stage):
    """One row of tables.LATENTS per folder of views, and files of latents, one per shard.

    Args:
        folder: whose folders are objects.
        settings: what may fail, and how many are read at once.
        size: height and width of the latents' pictures; their frames are those of a sample of views.
        vae, text: the frozen encoders.
        open_sandbox: gives the sandbox that pictures are opened in.
        device: of the encoders.
    """

    name, verb, unit = "views_latents", "encode", "objects"
    schema = pa.schema([("name", pa.string())])

    def __init__(
        self,
        folder: Path,
        settings: ViewSettings,
        size: LatentSettings,
        vae: VaeSettings,
        text: TextSettings,
        sandbox: SandboxSettings,
        device: Device = "cpu",
    ) -> None:
        self.folder, self.settings, self.size, self.sandbox = folder, settings, size, sandbox
        self.encoding = Encoding(vae, text, device)

    def given(self, scratch: Path, reusable: Path) -> Iterator[pa.RecordBatch]:
        names = list(folders.objects(self.folder))
        yield pa.RecordBatch.from_pydict({"name": names}, schema=self.schema)

    def decides(self) -> dict[str, Any]:
        precision = {"vae": self.encoding.vae.precision, "text": self.encoding.text.precision}
        size = {"height": self.size.height, "width": self.size.width}
        return {"latents": size, "precision": precision, **facts(self.encoding.vae, self.encoding.text).made_by}

    def inputs(self) -> dict[str, Any]:
        files = (path for name in folders.objects(self.folder) for path in sorted((self.folder / name).iterdir()))
        digest = hashlib.sha256()
        for path in files:
            if path.is_file():
                digest.update(f"{path.relative_to(self.folder)}\0{atomic.sha256_file(path)}\0".encode())
        sandbox = self.sandbox.model_dump(exclude=DECIDE_NOTHING)
        return {"objects": digest.hexdigest(), "sandbox": sandbox, "shard_objects": self.settings.shard_objects}

    def shard_size(self) -> float:
        return self.settings.shard_objects

    @contextmanager
    def worker(self, product: Path, reusable: Path) -> Iterator[Callable[[Shard], None]]:
        with Sandbox(self.sandbox) as opened:
            yield partial(
                encode_shard,
                folder=self.folder,
                sandbox=opened,
                encoding=self.encoding,
                size=self.size,
                product=product,
            )

    def join(self, work: Work, product: Path) -> Joined:
        table = product / TABLE
        queries.write(table, shards.joined(work, tables.LATENTS), tables.LATENTS)
        given = (batch.rename_columns(["clip"]) for batch in work.keys("name"))
        account = queries.settle("objects", given, queries.outcomes(table, "clip"), "clip")
        limit, place = self.settings.max_failed_fraction, "views.max_failed_fraction"
        tables.check_failures(account, limit, place, queries.named(table, "clip"), "clip")
        made_by, _, null = facts(self.encoding.vae, self.encoding.text)
        null_sha256 = text_hash({name: tensor[0] for name, tensor in null.items()})
        shard_files.write(product / NULL_TEXT, null, made_by | {TEXT_SHA256: null_sha256})
        write_encoders(product, self.encoding.vae, self.encoding.text, made_by)
        return Joined((account,))
