"""The samples that training reads, and the order in which they are drawn.

The order is a pure function of the seed and the position in the run, so that a run that goes on after a crash,
or on another number of ranks, draws the same samples. Shards are read with positioned reads straight into the
tensors of the batch; nothing is cached in the process. What cannot be trained on is refused when the folder is
opened, and a latent or a text whose bytes are not those that the table records when it is first read.

Shapes: B batch, F latent frames, C channels, H, W latents, L text tokens, E width of the text features,
M micro-conditions.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from stiv_model.latents.shard_files import (
    AGAIN,
    TEXT_PARTS,
    Memory,
    Shard,
    block_bytes,
    cut,
    entries,
    open_shards,
    refuse_others,
    refuse_unreachable,
    text_sha256,
)
from stiv_model.network.conditions import MICRO_CONDITIONS, Text

NULL_TEXT = "null_text.safetensors"
TABLE = "latents.parquet"

_TEXT = tuple(zip(TEXT_PARTS, Text._fields, strict=True))
_NEEDED = ("shard", "row", "sha256", "text_sha256", "aesthetic", *MICRO_CONDITIONS)
_ROUNDS = 8


class Sample(NamedTuple):
    """One clip as training sees it."""

    clip: str
    shard: str
    row: int
    aesthetic: float
    micro: tuple[float, ...]


class Batch(NamedTuple):
    """Some clips, in the precision that the shards have (float16), in which they are moved fastest."""

    clips: list[str]
    latents_BFCHW: Tensor
    text: Text
    micro_BM: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device, in float32."""

        def move(x: Tensor) -> Tensor:
            # in this order: one call of `to` with both would widen on the CPU, and move twice the bytes
            moved = x.to(device, non_blocking=True)
            return moved.float() if moved.is_floating_point() else moved

        return Batch(self.clips, move(self.latents_BFCHW), Text(*map(move, self.text)), move(self.micro_BM))


class Samples(Sequence[Sample]):
    """The rows of the table that a recipe trains on, column by column: millions of them take little memory."""

    def __init__(self, rows: pa.Table):
        self.clips = rows["clip"].combine_chunks()
        self.hashes, self.text_hashes = (rows[name].combine_chunks() for name in ("sha256", "text_sha256"))
        places = rows["shard"].combine_chunks().dictionary_encode()
        self.shards: list[str] = places.dictionary.to_pylist()
        self.shard_numbers = places.indices.to_numpy()
        self.rows, self.aesthetic = rows["row"].to_numpy(), rows["aesthetic"].to_numpy()
        self.micro = torch.from_numpy(np.stack([rows[name].to_numpy() for name in MICRO_CONDITIONS], 1)).float()

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return Sample(
            self.clips[index].as_py(),
            self.shards[self.shard_numbers[index]],
            int(self.rows[index]),
            float(self.aesthetic[index]),
            tuple(self.micro[index].tolist()),
        )


class LatentData:
    """The clips of one latents folder that a recipe trains on.

    Every row of the table with status ok can be read, and is either in `samples` or left out by `best_fraction`:
    `given == len(samples) + left_out`.

    Args:
        folder: what stage `latents` made.
        best_fraction: share of the clips taken, the best by aesthetic score first.

    Raises:
        FileNotFoundError: the table or a shard is missing.
        ValueError: there is no clip to train on; a row has no place, no hash, or the place of another; a shard is
            damaged, unlike the others, or made by other encoders than the null text; the null text is damaged; the
            process may not open as many files as there are shards.
    """

    def __init__(self, folder: Path, best_fraction: float):
        rows = _usable(folder / TABLE)
        self.given = len(rows)
        best = rows.sort_by([("aesthetic", "descending"), ("clip", "ascending")])
        self.samples = Samples(best.slice(0, math.ceil(best_fraction * len(best))).sort_by("clip"))
        self.left_out = self.given - len(self.samples)
        null = Shard(folder / NULL_TEXT)
        self.made_by = null.made_by
        self.shards = open_shards(folder, _counts(rows["shard"]))
        refuse_others(list(self.shards.values()), null)
        refuse_unreachable(rows, self.shards)
        self.parts = next(iter(self.shards.values())).tensors
        self.null_text = _read_text(null)
        self._memory = Memory()
        self._is_checked = bytearray(len(self.samples))

    @property
    def frames(self) -> int:
        """Latent frames per clip."""
        return self.parts["latents"].shape[0]

    def batch(self, indices: Sequence[int], pin: bool = False) -> Batch:
        """Read the samples with these indices; a sample's hash is checked the first time.

        Args:
            indices: which of `samples`.
            pin: read into page-locked memory, from which a GPU copies without waiting.

        Raises:
            OSError: a shard cannot be read; the message names the clip.
            ValueError: a latent or a text is not the one that the table records; the message names the clip.
        """
        samples, size = self.samples, len(indices)
        out = cut(self._memory.lend(block_bytes(self.parts, size), pin), self.parts, size)
        places = [self._place(index) for index in indices]
        views = entries(out)
        late = {at for at, (shard, row) in enumerate(places) if not shard.read_from_memory(row, views[at])}
        for at in late:
            shard, row = places[at]
            shard.announce(row)
        for at, index in enumerate(indices):  # one by one, so that hashing overlaps with the disk
            if at in late:
                self._read(index, views[at])
            if not self._is_checked[index]:
                self._check(index, dict(zip(self.parts, views[at], strict=True)))
        return Batch(
            [samples.clips[index].as_py() for index in indices],
            out["latents"],
            Text(**{field: out[name] for name, field in _TEXT}),
            samples.micro[list(indices)],
        )

    def _read(self, index: int, into: Sequence[memoryview]) -> None:
        shard, row = self._place(index)
        try:
            shard.read(row, into)
        except OSError as error:
            raise OSError(f"{self._name(index)} cannot be read: {error}") from error

    def _check(self, index: int, parts: Mapping[str, memoryview]) -> None:
        for what, found, hashes in (
            ("latents", hashlib.sha256(parts["latents"]).hexdigest(), self.samples.hashes),
            ("text features", text_sha256(parts), self.samples.text_hashes),
        ):
            wanted = hashes[index].as_py()
            if found != wanted:
                raise ValueError(
                    f"{self._name(index)} has {what} with sha256 {found[:12]}, but {TABLE} says {wanted[:12]}: {AGAIN}"
                )
        self._is_checked[index] = True

    def _place(self, index: int) -> tuple[Shard, int]:
        samples = self.samples
        return self.shards[samples.shards[samples.shard_numbers[index]]], int(samples.rows[index])

    def _name(self, index: int) -> str:
        shard, row = self._place(index)
        return f"clip {self.samples.clips[index]} (row {row} of {shard.path})"


class Order:
    """Which sample stands at each position of a run: one seeded permutation per epoch.

    The permutation is computed per position, not kept (a Feistel network over pairs of numbers below `side`, walked
    until it meets a sample: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002), so that the first
    position and the one after a billion cost the same.
    """

    def __init__(self, samples: int, seed: int):
        if samples < 1:
            raise ValueError("an order needs one sample or more, and there are 0")
        self.samples, self.seed = samples, seed
        self.side = math.isqrt(samples - 1) + 1

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self.samples)
        keys = _round_keys(self.seed, epoch)
        while True:
            left, right = divmod(place, self.side)
            for key in keys:
                left, right = right, (left + _scatter(right ^ key)) % self.side
            place = left * self.side + right
            if place < self.samples:
                return place


@lru_cache(maxsize=2)
def _round_keys(seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(draw_seed(seed, f"epoch {epoch} round", number) for number in range(_ROUNDS))


def _scatter(x: int) -> int:
    """Mix the bits of a number below 2^64, so that neighbours end up far apart."""
    for factor in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93):
        x = x * factor & 0xFFFFFFFFFFFFFFFF
        x ^= x >> 32
    return x


def draw_seed(seed: int, purpose: str, number: int) -> int:
    """Return a seed for one draw, as good as independent of those of other purposes and numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()[:7], "little")


def micro_batches(steps: Iterable[int], batch: int, accumulation: int, rank: int, ranks: int) -> Iterator[range]:
    """Yield the positions of a rank's micro-batches, `accumulation` per step.

    Step n has the positions from n * batch on, whatever the number of ranks; they are cut into equal parts, which
    the ranks take in turn.

    Raises:
        ValueError: the batch cannot be cut into equal parts.
    """
    share, rest = divmod(batch, accumulation * ranks)
    if rest:
        raise ValueError(f"batch {batch} cannot be cut into {accumulation * ranks} equal micro-batches")
    for step in steps:
        for part in range(accumulation):
            first = step * batch + (part * ranks + rank) * share
            yield range(first, first + share)


def _usable(table: Path) -> pa.Table:
    if not table.exists():
        raise FileNotFoundError(f"{table} does not exist: run stage latents first")
    if missing := sorted({*_NEEDED} - {*pq.read_schema(table).names}):
        raise ValueError(f"{table} has no column {missing[0]}: {AGAIN}")
    rows = pq.read_table(table, columns=["clip", "status", *_NEEDED])
    rows = rows.filter(pc.equal(rows["status"], "ok"))
    if not len(rows):
        raise ValueError(f"{table} has no usable clip: nothing to train on")
    if twice := sorted(clip for clip, times in _counts(rows["clip"]).items() if times > 1):
        raise ValueError(f"{table}: clip {twice[0]} has more than one row that is ok: {AGAIN}")
    for name in _NEEDED:
        if rows[name].null_count:
            clip = rows.filter(pc.is_null(rows[name]))["clip"][0]
            raise ValueError(f"{table}: clip {clip} is ok but has no {name}: {AGAIN}")
    return rows


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counts = column.value_counts()
    return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))


def _read_text(shard: Shard) -> Text:
    out = cut(torch.empty(block_bytes(shard.tensors, 1), dtype=torch.uint8), shard.tensors, 1)
    stored = dict(zip(out, entries(out)[0], strict=True))
    shard.read(0, list(stored.values()))
    if text_sha256(stored) != shard.text_sha256:
        raise ValueError(f"{shard.path} has other text features than were written there: {AGAIN}")
    parts = {field: out[name] for name, field in _TEXT}
    return Text(**{field: x.float() if x.is_floating_point() else x for field, x in parts.items()})
