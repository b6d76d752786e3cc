"""The samples that training reads.

Shards are read with positioned reads straight into the tensors of the batch; nothing is cached in the process. What
cannot be trained on is refused when the folder is opened, and a latent or a text whose bytes are not those that the
table records when it is first read.

Shapes: B batch, F latent frames, C channels, H, W latents, L text tokens, E width of the text features,
M micro-conditions.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from stiv_model.latents.choice import choose
from stiv_model.latents.folder import TABLE
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
from stiv_model.settings import NULL_TEXT, RecipeSettings

_TEXT = tuple(zip(TEXT_PARTS, Text._fields, strict=True))
_NEEDED = ("shard", "row", "sha256", "text_sha256", "aesthetic", *MICRO_CONDITIONS)


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

    Every row of the table with status ok can be read, and is either in `samples` or left out (`choice.choose`):
    `given == len(samples) + left_out`.

    Args:
        folder: what stage `latents` made.
        recipe: what is trained; its `span` and `best_fraction` decide which clips are samples.

    Raises:
        FileNotFoundError: the table or a shard is missing.
        ValueError: there is no clip to train on, or none as long as the recipe needs; a row has no place, no hash, or
            the place of another; a shard is damaged, unlike the others, or made by other encoders than the null text;
            the null text is damaged; the process may not open as many files as there are shards.
    """

    def __init__(self, folder: Path, recipe: RecipeSettings):
        rows = _usable(folder / TABLE)
        null = Shard(folder / NULL_TEXT)
        self.made_by = null.made_by
        self.shards = open_shards(folder, _counts(rows["shard"]))
        refuse_others(list(self.shards.values()), null)
        refuse_unreachable(rows, self.shards)
        self.parts = next(iter(self.shards.values())).tensors
        chosen = choose(rows, dict.fromkeys(self.shards, self.frames), recipe).samples
        if not len(chosen):
            raise ValueError(
                f"{folder} has clips of {self.frames} latent frames, and the recipe needs {recipe.span}: nothing to "
                "train on"
            )
        self.samples, self.given = Samples(chosen), len(rows)
        self.left_out = self.given - len(self.samples)
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
    stored = shard.clip(0)
    if text_sha256({name: part.numpy().data for name, part in stored.items()}) != shard.text_sha256:
        raise ValueError(f"{shard.path} has other text features than were written there: {AGAIN}")
    parts = {field: stored[name][None] for name, field in _TEXT}
    return Text(**{field: x.float() if x.is_floating_point() else x for field, x in parts.items()})
