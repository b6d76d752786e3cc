"""The samples that training reads.

Shards are read with positioned reads straight into the tensors of the batch; nothing is cached in the process. What
cannot be trained on is refused when the folder is opened, and a latent or a text whose bytes are not those that the
table records when it is first read.

Shapes: B batch, F latent frames, C channels, H, W latents, L text tokens, E width of the text features,
M micro-conditions.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from stiv_model.latents import table_columns
from stiv_model.latents.choice import choose
from stiv_model.latents.folder import TABLE
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
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.settings import NULL_TEXT, RecipeSettings

_TEXT = tuple(zip(TEXT_PARTS, Text._fields, strict=True))
_PLACES = ("shard", "row", "aesthetic")
_HASHES = ("sha256", "text_sha256")


class Sample(NamedTuple):
    """One clip as training sees it."""

    clip: str
    shard: str
    row: int
    micro: tuple[float, ...]


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


class Usable:
    """Where the clips are that can be trained on, by their numbers among the rows that are ok.

    Raises:
        ValueError: there is none; or one has no place or score.
    """

    def __init__(self, table: Path):
        most, first = table_columns.count_rows(table), 0
        self.table = table
        names, shards = table_columns.Names(most), table_columns.Numbered()
        shard_numbers, rows, aesthetic = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most)
        for batch in _ok(table, _PLACES):
            here = slice(first, first := first + len(batch))
            names.extend(batch["clip"])
            shard_numbers[here] = shards.numbers(batch["shard"])
            rows[here], aesthetic[here] = batch["row"].to_numpy(), batch["aesthetic"].to_numpy()
        if not first:
            raise ValueError(f"{table} has no usable clip: nothing to train on")
        self.clips, self.shards = names.array(), shards.texts
        self.shard_numbers, self.rows, self.aesthetic = shard_numbers[:first], rows[:first], aesthetic[:first]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def per_shard(self) -> dict[str, int]:
        """How many are in each shard, by its name."""
        return dict(zip(self.shards, np.bincount(self.shard_numbers).tolist(), strict=True))

    def in_order(self) -> np.ndarray:
        """Return their numbers in the order of their names.

        Raises:
            ValueError: two have the same name.
        """
        order = table_columns.in_order(self.clips)
        if twice := next(table_columns.repeated(self.clips, order), None):
            raise ValueError(f"{self.table}: clip {twice} has more than one row that is ok: {AGAIN}")
        return order

    def refuse_unreachable(self, shards: Shards) -> None:
        """Refuse clips that no shard has, or that have the place of another.

        Raises:
            ValueError: the clip, its row and the shard.
        """
        order = np.argsort(self.shard_numbers, kind="stable")
        for clips in np.split(order, np.cumsum(np.bincount(self.shard_numbers))[:-1]):
            places = self.rows[clips]
            number = self.shard_numbers[clips[0]]
            beyond = (places < 0) | (places >= shards.sizes[number])
            if beyond.any():
                at = int(np.argmax(beyond))
                raise ValueError(
                    f"clip {self.clips[clips[at]]} has row {places[at]} of {shards.path(number)}, which has "
                    f"{shards.sizes[number]}: {AGAIN}"
                )
            by_place = np.argsort(places, kind="stable")
            same = np.flatnonzero(np.diff(places[by_place]) == 0)
            if len(same):
                one, other = clips[by_place[same[0] : same[0] + 2]]
                raise ValueError(
                    f"clips {self.clips[one]} and {self.clips[other]} have the same row {self.rows[one]} of "
                    f"{shards.path(number)}: {AGAIN}"
                )


class Samples(Sequence[Sample]):
    """What a recipe trains on, sample by sample: 105 bytes each, so that a hundred million fit in a rank.

    Args:
        usable: among which they are.
        chosen: their numbers there.

    Raises:
        ValueError: a usable clip has no hash or micro-condition.
    """

    def __init__(self, usable: Usable, chosen: np.ndarray):
        self._table = usable.table
        self.sha256 = table_columns.sha256_of(usable.clips, chosen)
        """Of their names, as `data_plan.Plan.samples_sha256` is."""
        self.shards = usable.shards
        self.numbers = chosen.astype(np.uint32 if len(usable) < 1 << 32 else np.uint64)
        self.shard_numbers, self.rows = usable.shard_numbers[chosen], usable.rows[chosen]
        self.hashes, self.text_hashes = (np.empty((len(chosen), 32), np.uint8) for _ in _HASHES)
        self.micro = np.empty((len(chosen), len(MICRO_CONDITIONS)), np.int32)
        self._fill(len(usable))

    def _fill(self, usable: int) -> None:
        samples = np.full(usable, -1, np.int64)
        samples[self.numbers] = np.arange(len(self))
        first = 0
        for batch in _ok(self._table, (*_HASHES, *MICRO_CONDITIONS)):
            here = samples[first : first + len(batch)]
            first += len(batch)
            is_sample = here >= 0
            micro = np.stack([batch[name].to_numpy() for name in MICRO_CONDITIONS], 1)
            self.micro[here[is_sample]] = micro[is_sample]
            for name, hashes in zip(_HASHES, (self.hashes, self.text_hashes), strict=True):
                hashes[here[is_sample]] = _hashes(self._table, batch, name)[is_sample]

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
            self.clip(index),
            self.shards[self.shard_numbers[index]],
            int(self.rows[index]),
            tuple(self.micro[index].astype(float).tolist()),
        )

    def clip(self, index: int) -> str:
        """Return the name of a sample's clip."""
        return self._names[int(self.numbers[index])]

    @cached_property
    def _names(self) -> table_columns.StoredNames:
        return table_columns.StoredNames(batch["clip"] for batch in _ok(self._table, ()))


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
            the null text is damaged.
    """

    def __init__(self, folder: Path, recipe: RecipeSettings):
        usable = _usable(folder / TABLE)
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
        self.samples, self.given = Samples(usable, chosen), len(usable)
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
            torch.from_numpy(samples.micro[list(indices)]).float(),
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


def _usable(table: Path) -> Usable:
    if not table.exists():
        raise FileNotFoundError(f"{table} does not exist: run stage latents first")
    needed = {*_PLACES, *_HASHES, *MICRO_CONDITIONS}
    if missing := sorted(needed - {*pq.read_schema(table).names}):
        raise ValueError(f"{table} has no column {missing[0]}: {AGAIN}")
    return Usable(table)


def _ok(table: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Give clip and other columns of the rows that are ok.

    Raises:
        ValueError: one of them has no value.
    """
    for whole in table_columns.batches(table, ["clip", "status", *columns]):
        batch = whole.filter(table_columns.is_ok(whole))
        for name in columns:
            if batch[name].null_count:
                clip = batch["clip"].filter(batch[name].is_null())[0]
                raise ValueError(f"{table}: clip {clip} is ok but has no {name}: {AGAIN}")
        yield batch


def _hashes(table: Path, batch: pa.RecordBatch, name: str) -> np.ndarray:
    try:
        return table_columns.hashes(batch[name])
    except ValueError as error:
        raise ValueError(f"{table}: {name} of a clip is no sha256 ({error}): {AGAIN}") from None


def _read_text(shard: Shard) -> Text:
    stored = shard.clip(0)
    if text_sha256({name: part.numpy().data for name, part in stored.items()}) != shard.text_sha256:
        raise ValueError(f"{shard.path} has other text features than were written there: {AGAIN}")
    parts = {field: stored[name][None] for name, field in _TEXT}
    return Text(**{field: x.float() if x.is_floating_point() else x for field, x in parts.items()})
