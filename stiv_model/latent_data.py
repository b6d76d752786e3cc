"""The samples that training reads: packed safetensors shards, and the order in which they are drawn.

The order is a pure function of the seed and the position in the run, so that a run that goes on after a crash,
or on another number of ranks, draws the same samples. Shards are read with positioned reads straight into the
tensors of the batch; nothing is cached in the process.

Shapes: B batch, F latent frames, C channels, L text tokens, E width of the text features, M micro-conditions.
"""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import torch
from torch import Tensor

from stiv_model.conditions import MICRO_CONDITIONS, Text

_DTYPES = {"F16": torch.float16, "F32": torch.float32, "BOOL": torch.bool}
NULL_TEXT = "null_text.safetensors"


class Sample(NamedTuple):
    """One clip as training sees it."""

    clip: str
    shard: str
    row: int
    aesthetic: float
    micro: tuple[float, ...]


class Batch(NamedTuple):
    clips: list[str]
    latents_BFCHW: Tensor
    text: Text
    micro_BM: Tensor


class Shard:
    """One safetensors file whose tensors have one entry per clip in their first dimension."""

    def __init__(self, path: Path):
        self.descriptor = os.open(path, os.O_RDONLY)
        length = int.from_bytes(os.pread(self.descriptor, 8, 0), "little")
        header = json.loads(os.pread(self.descriptor, length, 8))
        self.made_by: dict[str, str] = header.pop("__metadata__")
        self.tensors = {
            name: (_DTYPES[entry["dtype"]], entry["shape"][1:], 8 + length + entry["data_offsets"][0])
            for name, entry in header.items()
        }

    def read(self, name: str, row: int, into: Tensor) -> None:
        """Read one clip's entry into a contiguous tensor of its shape and dtype."""
        dtype, shape, start = self.tensors[name]
        size = math.prod(shape) * dtype.itemsize
        buffer = into.view(torch.uint8).numpy().data.cast("B")
        if os.preadv(self.descriptor, [buffer], start + row * size) != size:
            raise OSError(f"a latent shard ends inside {name} of row {row}")

    def empty(self, name: str, batch: int) -> Tensor:
        dtype, shape, _ = self.tensors[name]
        return torch.empty(batch, *shape, dtype=dtype)


class LatentData:
    """The clips of one latents folder that a recipe trains on.

    Args:
        folder: what stage `latents` made.
        best_fraction: share of the clips taken, the best by aesthetic score first.

    Raises:
        ValueError: there is no clip to train on, or shards were made by different encoders.
    """

    def __init__(self, folder: Path, best_fraction: float):
        rows = [row for row in pq.read_table(folder / "latents.parquet").to_pylist() if row["status"] == "ok"]
        if not rows:
            raise ValueError(f"{folder} has no usable clip: nothing to train on")
        best = sorted(rows, key=lambda row: (-row["aesthetic"], row["clip"]))
        best = best[: math.ceil(best_fraction * len(best))]
        self.given = len(rows)
        self.samples = [
            Sample(
                row["clip"],
                row["shard"],
                row["row"],
                row["aesthetic"],
                tuple(float(row[name]) for name in MICRO_CONDITIONS),
            )
            for row in sorted(best, key=lambda row: row["clip"])
        ]
        self.shards = {name: Shard(folder / name) for name in sorted({row["shard"] for row in rows})}
        makers = {json.dumps(shard.made_by, sort_keys=True) for shard in self.shards.values()}
        if len(makers) != 1:
            raise ValueError(f"the shards in {folder} were made by different encoders: {sorted(makers)}")
        self.made_by: dict[str, str] = json.loads(makers.pop())
        null = Shard(folder / NULL_TEXT)
        self.null_text = Text(*(_read_all(null, name) for name in ("tokens", "mask", "pooled")))

    @property
    def frames(self) -> int:
        """Latent frames per clip."""
        return next(iter(self.shards.values())).tensors["latents"][1][0]

    def batch(self, indices: list[int]) -> Batch:
        """Read the samples with these indices."""
        first = next(iter(self.shards.values()))
        names = ("latents", "tokens", "mask", "pooled")
        out = {name: first.empty(name, len(indices)) for name in names}
        for place, index in enumerate(indices):
            sample = self.samples[index]
            for name in names:
                self.shards[sample.shard].read(name, sample.row, out[name][place])
        chosen = [self.samples[index] for index in indices]
        return Batch(
            [sample.clip for sample in chosen],
            out["latents"].float(),
            Text(out["tokens"].float(), out["mask"], out["pooled"].float()),
            torch.tensor([sample.micro for sample in chosen]),
        )


class Order:
    """Which sample stands at each position of a run: one seeded permutation per epoch."""

    def __init__(self, samples: int, seed: int):
        self.samples, self.seed = samples, seed
        self._epoch, self._permutation = -1, torch.empty(0)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self.samples)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(draw_seed(self.seed, "epoch", epoch))
            self._epoch, self._permutation = epoch, torch.randperm(self.samples, generator=generator)
        return int(self._permutation[place])


def draw_seed(seed: int, purpose: str, number: int) -> int:
    """Return a seed for one draw, as good as independent of those of other purposes and numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()[:7], "little")


def _read_all(shard: Shard, name: str) -> Tensor:
    out = shard.empty(name, 1)
    shard.read(name, 0, out[0])
    return out.float() if out.dtype != torch.bool else out
