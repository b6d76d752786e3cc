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
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stiv_model.latents import balance
from stiv_model.latents.choice import choose
from stiv_model.latents.folder import TABLE
from stiv_model.latents.samples import Samples, Usable
from stiv_model.latents.shard_files import (
    AGAIN,
    TEXT_PARTS,
    Memory,
    Shard,
    Shards,
    block_bytes,
    cut,
    entries,
    text_sha256,
)
from stiv_model.network.conditions import Text
from stiv_model.settings import NULL_TEXT, RecipeSettings

_TEXT = tuple(zip(TEXT_PARTS, Text._fields, strict=True))


class Batch(NamedTuple):
    """Some samples, in the precision that the shards have (float16), in which they are moved fastest."""

    samples: list[int]
    """Their numbers."""
    latents_BFCHW: Tensor
    text: Text
    micro_BM: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device, in float32."""

        def move(x: Tensor) -> Tensor:
            # in this order: one call of `to` with both would widen on the CPU, and move twice the bytes
            moved = x.to(device, non_blocking=True)
            return moved.float() if moved.is_floating_point() else moved

        return Batch(self.samples, move(self.latents_BFCHW), Text(*map(move, self.text)), move(self.micro_BM))


class LatentData:
    """The clips of one latents folder that a recipe trains on.

    Every row of the table with status ok can be read, and is either in `samples` or left out (`choice.choose`):
    `given == len(samples) + left_out`.

    Args:
        folder: what stage `latents` made.
        recipe: what is trained; its `span` and `best_fraction` decide which clips are samples, its `balance` whether
            their categories are read.

    Raises:
        FileNotFoundError: the table or a shard is missing.
        ValueError: there is no clip to train on, or none as long as the recipe needs; a row has no place, no hash, or
            the place of another; a shard is damaged, unlike the others, or made by other encoders than the null text;
            the null text is damaged.
    """

    def __init__(self, folder: Path, recipe: RecipeSettings):
        table = folder / TABLE
        usable = Usable(table)
        null = Shard(folder / NULL_TEXT)
        self.made_by = null.made_by
        self.shards = Shards(folder, usable.per_shard, null)
        self.parts = self.shards.tensors
        usable.refuse_unreachable(self.shards)
        frames = np.broadcast_to(self.frames, len(usable))
        chosen = choose(usable.in_order(), usable.aesthetic, frames, recipe).samples
        if not len(chosen):
            raise ValueError(
                f"{folder} has clips of {self.frames} latent frames, and the recipe needs {recipe.span}: nothing to "
                "train on"
            )
        self.given, places = len(usable), usable.places(chosen)
        del usable, chosen  # before as much again is read
        self.samples = Samples(table, places)
        self.balance = balance.read(table, places.numbers, only_ok=True) if recipe.balance else None
        """Categories of the samples, if the recipe draws by them."""
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
            list(indices),
            out["latents"],
            Text(**{field: out[name] for name, field in _TEXT}),
            torch.from_numpy(samples.micro[list(indices)].astype(np.float32)),
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
            wanted = hashes[index].tobytes().hex()
            if found != wanted:
                raise ValueError(
                    f"{self._name(index)} has {what} with sha256 {found[:12]}, but {TABLE} says {wanted[:12]}: {AGAIN}"
                )
        self._is_checked[index] = True

    def _place(self, index: int) -> tuple[Shard, int]:
        samples = self.samples
        try:
            shard = self.shards[int(samples.shard_numbers[index])]
        except (OSError, ValueError) as error:
            raise OSError(f"{self._name(index)} cannot be read: {error}") from error
        return shard, int(samples.rows[index])

    def _name(self, index: int) -> str:
        samples = self.samples
        path = self.shards.path(samples.shard_numbers[index])
        return f"clip {samples.clip(index)} (row {samples.rows[index]} of {path})"


def _read_text(shard: Shard) -> Text:
    stored = shard.clip(0)
    if text_sha256({name: part.numpy().data for name, part in stored.items()}) != shard.text_sha256:
        raise ValueError(f"{shard.path} has other text features than were written there: {AGAIN}")
    parts = {field: stored[name][None] for name, field in _TEXT}
    return Text(**{field: x.float() if x.is_floating_point() else x for field, x in parts.items()})
