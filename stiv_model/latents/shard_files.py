"""The files of packed latents: safetensors whose tensors have one entry per clip, read entry by entry."""

import errno
import hashlib
import json
import math
import os
import resource
import weakref
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

AGAIN = "make the latents again (stage latents)"
"""The remedy for all that can be wrong with a shard."""

TEXT_PARTS = ("tokens", "mask", "pooled")
"""The tensors of a shard that are text features."""
TEXT_SHA256 = "features_sha256"
"""In the metadata of the null text, which has no row in the table: `text_sha256` of its features."""

_LARGEST_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself: a header is read whole, and claims its own size."""
_OTHER_FILES = 64
"""Descriptors that a process needs beside those of the shards."""
_DTYPES = {"F16": torch.float16, "F32": torch.float32, "BOOL": torch.bool}


class Part(NamedTuple):
    """One tensor of a shard: what one clip has of it, and where it starts in the file."""

    dtype: torch.dtype
    shape: list[int]
    size_bytes: int
    """Of one clip's entry."""
    start: int


class Shard:
    """One safetensors file whose tensors have one entry per clip in their first dimension.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file of this kind, or not as long as its header says.
    """

    def __init__(self, path: Path):
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)
        length = int.from_bytes(os.pread(self.descriptor, 8, 0), "little")
        size = os.fstat(self.descriptor).st_size
        if length > _LARGEST_HEADER_BYTES:
            raise ValueError(f"{path} is not a shard of latents (a header of {length} bytes): {AGAIN}")
        try:
            header = json.loads(os.pread(self.descriptor, min(length, size), 8))
            self.made_by: dict[str, str] = header.pop("__metadata__")
            self.text_sha256 = self.made_by.pop(TEXT_SHA256, None)
            self.tensors = {name: _part(entry, 8 + length) for name, entry in sorted(header.items())}
            (self.rows,) = {entry["shape"][0] for entry in header.values()}
            end = 8 + length + max(entry["data_offsets"][1] for entry in header.values())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a shard of latents ({error!r}): {AGAIN}") from error
        if end != size:
            raise ValueError(f"{path} has {size} bytes, but its header says {end}: {AGAIN}")

    @property
    def kind(self) -> dict[str, tuple[torch.dtype, list[int]]]:
        """Type and shape of what one clip has, by the name of the tensor."""
        return {name: (part.dtype, part.shape) for name, part in self.tensors.items()}

    def read_from_memory(self, row: int, into: Sequence[memoryview]) -> bool:
        """Read one clip's entries, in the order of `tensors`, if the system has them in memory; say whether it did."""
        try:
            for part, view in zip(self.tensors.values(), into, strict=True):
                size = part.size_bytes
                if os.preadv(self.descriptor, [view], part.start + row * size, os.RWF_NOWAIT) != size:
                    return False
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):  # the latter where a file system cannot say
                return False
            raise
        return True

    def announce(self, row: int) -> None:
        """Let the system fetch one clip's entries while others are read."""
        for part in self.tensors.values():
            os.posix_fadvise(
                self.descriptor, part.start + row * part.size_bytes, part.size_bytes, os.POSIX_FADV_WILLNEED
            )

    def read(self, row: int, into: Sequence[memoryview]) -> None:
        """Read one clip's entries, in the order of `tensors`.

        Raises:
            OSError: they cannot be read, or the file ends before.
        """
        for (name, part), view in zip(self.tensors.items(), into, strict=True):
            start, done = part.start + row * part.size_bytes, 0
            while done < part.size_bytes:  # once, but for file systems that give less than asked
                got = os.preadv(self.descriptor, [view[done:]], start + done)
                if not got:
                    raise OSError(f"it ends inside {name}")
                done += got


def text_sha256(features: Mapping[str, memoryview]) -> str:
    """Return the hash of one clip's text features, TEXT_PARTS by name, as a shard stores them."""
    digest = hashlib.sha256()
    for name in TEXT_PARTS:
        digest.update(features[name])
    return digest.hexdigest()


def _part(entry: dict, header_bytes: int) -> Part:
    rows, *shape = entry["shape"]
    first, last = entry["data_offsets"]
    size = math.prod(shape) * _DTYPES[entry["dtype"]].itemsize
    if last - first != rows * size:
        raise ValueError(f"{last - first} bytes for {rows} clips of {size}")
    return Part(_DTYPES[entry["dtype"]], shape, size, header_bytes + first)


def open_shards(folder: Path, clips: Mapping[str, int]) -> dict[str, Shard]:
    """Open shards by name.

    Args:
        folder: where they are.
        clips: how many clips are said to be in each.

    Raises:
        FileNotFoundError: a shard is missing.
        ValueError: as `Shard`; or the process may not open as many files.
    """
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if len(clips) + _OTHER_FILES > allowed:
        raise ValueError(
            f"{folder} has {len(clips)} shards, but this process may open {allowed} files: "
            f"ulimit -n {2 * len(clips) + _OTHER_FILES}, or a larger latents.shard_clips"
        )
    if missing := [name for name in sorted(clips) if not (folder / name).exists()]:
        lost = sum(clips[name] for name in missing)
        raise FileNotFoundError(f"{folder / missing[0]} does not exist, and {lost} clips are said to be there: {AGAIN}")
    return {name: Shard(folder / name) for name in sorted(clips)}


def refuse_others(shards: list[Shard], null: Shard) -> None:
    """Refuse shards that are not of one kind.

    Args:
        shards: each must have latents and text features in one shape.
        null: the null text, made last, by the encoders that must have made all.

    Raises:
        ValueError: a shard has other shapes, or was made by other encoders; the message names it.
    """
    kind = shards[0].kind
    of_text = {name: kind.get(name) for name in TEXT_PARTS}
    for shard, wanted in [*((shard, kind) for shard in shards), (null, of_text)]:
        if shard.kind != wanted or "latents" not in kind:
            raise ValueError(f"{shard.path} has tensors of other shapes than {shards[0].path}: {AGAIN}")
        if not shard.made_by or shard.made_by != null.made_by:
            raise ValueError(
                f"{shard.path} and {null.path} were made by different encoders: {shard.made_by} and {null.made_by}"
            )


def refuse_unreachable(rows: pa.Table, shards: Mapping[str, Shard]) -> None:
    """Refuse rows that no shard has, or that have the place of another.

    Raises:
        ValueError: the clip, its row and the shard.
    """
    ordered = rows.sort_by([("shard", "ascending"), ("row", "ascending")])
    names = ordered["shard"].combine_chunks().dictionary_encode()
    numbers, places, clips = names.indices.to_numpy(), ordered["row"].to_numpy(), ordered["clip"]
    sizes = np.array([shards[name].rows for name in names.dictionary.to_pylist()])
    beyond = np.flatnonzero((places < 0) | (places >= sizes[numbers]))
    if len(beyond):
        clip, place, shard = clips[int(beyond[0])], places[beyond[0]], shards[names[int(beyond[0])].as_py()]
        raise ValueError(f"clip {clip} has row {place} of {shard.path}, which has {shard.rows}: {AGAIN}")
    same = np.flatnonzero((numbers[1:] == numbers[:-1]) & (places[1:] == places[:-1]))
    if len(same):
        at = int(same[0])
        shard = shards[names[at].as_py()]
        raise ValueError(
            f"clips {clips[at]} and {clips[at + 1]} have the same row {places[at]} of {shard.path}: {AGAIN}"
        )


class Memory:
    """Lends blocks of memory, and lends a block again when no tensor uses it any more.

    To touch memory that is new costs the system more than to fill it from the page cache.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = defaultdict(list)

    def lend(self, size_bytes: int, pin: bool) -> Tensor:
        """Return a block of bytes (size_bytes,), page-locked if `pin`: torch keeps a pool of those itself."""
        if pin:
            return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)
        free = self._free[size_bytes]
        block = free.pop() if free else np.empty(size_bytes, np.uint8)
        lent = block.view()  # dies with the last tensor of the block, while `block` lives on
        weakref.finalize(lent, free.append, block).atexit = False
        return torch.from_numpy(lent)


def cut(block: Tensor, parts: dict[str, Part], batch: int) -> dict[str, Tensor]:
    """Return the tensors of a batch (batch, ...) by name, one behind the other in a block of `block_bytes` bytes."""
    out, start = {}, 0
    for name, part in parts.items():
        size = batch * part.size_bytes
        out[name] = block[start : start + size].view(part.dtype).view(batch, *part.shape)
        start += _aligned(size)
    return out


def block_bytes(parts: dict[str, Part], batch: int) -> int:
    """Return the bytes that `cut` needs for a batch of so many clips."""
    return sum(_aligned(batch * part.size_bytes) for part in parts.values())


def entries(tensors: Mapping[str, Tensor]) -> list[tuple[memoryview, ...]]:
    """Return the bytes of each clip, one view for each of the tensors (clips, ...), to be written to."""
    pieces = []
    for x in tensors.values():
        whole = x.view(torch.uint8).numpy().data.cast("B")
        size = len(whole) // len(x)
        pieces.append([whole[start : start + size] for start in range(0, len(whole), size)])
    return list(zip(*pieces, strict=True))


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
