"""The files of packed latents: what one clip has lies together, and is read at once.

A file is safetensors with one tensor, `clips`, of bytes (clips, bytes of an entry). An entry has the clip's latents and
text features one behind the other, each at a multiple of 64 bytes; what and where is said in the file's metadata,
`entry`: a JSON list of [name, type, shape, offset]. The null text is such a file with one entry, and without latents.
"""

import errno
import hashlib
import json
import math
import os
import resource
import weakref
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stiv_model.latents.folder import ALIGNMENT_BYTES

AGAIN = "make the latents again (stage latents)"
"""The remedy for all that can be wrong with a shard."""

TEXT_PARTS = ("tokens", "mask", "pooled")
"""The tensors of a shard that are text features."""
TEXT_SHA256 = "features_sha256"
"""In the metadata of the null text, which has no row in the table: `text_sha256` of its features."""

_CLIPS, _ENTRY = "clips", "entry"
_NAMES = ("latents", *TEXT_PARTS)
"""In the order of an entry."""
_LARGEST_HEADER_BYTES = 1_000_000
"""A header is read whole, and claims its own size; one of ours has less than a thousand bytes."""
_MOST_OPEN = 1 << 16
"""Shards at a time, where a process may open any number of files."""
_DTYPES = {"F16": torch.float16, "F32": torch.float32, "BOOL": torch.bool}
_NOWHERE = memoryview(bytearray(ALIGNMENT_BYTES))
"""Takes the bytes between two tensors of an entry."""


class Part(NamedTuple):
    """One tensor of a shard: what one clip has of it, and where it starts in the clip's entry."""

    dtype: torch.dtype
    shape: list[int]
    size_bytes: int
    start: int


class Shard:
    """One file of packed latents, or the null text.

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
            if _CLIPS not in header and header.keys() & {*TEXT_PARTS}:
                raise ValueError("it is of an earlier release, which kept each tensor apart")
            self.text_sha256 = self.made_by.pop(TEXT_SHA256, None)
            self.rows, self.entry_bytes = _clips(header)
            self.tensors = _parts(json.loads(self.made_by.pop(_ENTRY)), self.entry_bytes)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a shard of latents ({error!r}): {AGAIN}") from error
        self._start = 8 + length
        if (end := self._start + self.rows * self.entry_bytes) != size:
            raise ValueError(f"{path} has {size} bytes, but its header says {end}: {AGAIN}")
        ends = [0, *(part.start + part.size_bytes for part in self.tensors.values())]
        self._gaps = [_NOWHERE[: part.start - end] for part, end in zip(self.tensors.values(), ends, strict=False)]
        self._read_bytes = ends[-1]

    @property
    def kind(self) -> list[tuple[str, torch.dtype, list[int]]]:
        """Name, type and shape of what one clip has, in the order of its entry."""
        return [(name, part.dtype, part.shape) for name, part in self.tensors.items()]

    def clip(self, row: int) -> dict[str, Tensor]:
        """Return the tensors of one clip by name, in their shapes without the first dimension.

        Raises:
            OSError: they cannot be read, or the file ends before.
        """
        out = cut(torch.empty(block_bytes(self.tensors, 1), dtype=torch.uint8), self.tensors, 1)
        self.read(row, entries(out)[0])
        return {name: tensor[0] for name, tensor in out.items()}

    def read_from_memory(self, row: int, into: Sequence[memoryview]) -> bool:
        """Read one clip's tensors, in the order of `tensors`, if the system has them in memory; say whether it did."""
        try:
            got = os.preadv(self.descriptor, self._around(into), self._place(row), os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):  # the latter where a file system cannot say
                return False
            raise
        return got == self._read_bytes

    def announce(self, row: int) -> None:
        """Let the system fetch one clip's entry while others are read."""
        os.posix_fadvise(self.descriptor, self._place(row), self._read_bytes, os.POSIX_FADV_WILLNEED)

    def read(self, row: int, into: Sequence[memoryview]) -> None:
        """Read one clip's tensors, in the order of `tensors`.

        Raises:
            OSError: they cannot be read, or the file ends before.
        """
        place, left = self._place(row), self._around(into)
        while left:  # once, but for file systems that give less than asked
            got = os.preadv(self.descriptor, left, place)
            if not got:
                raise OSError("it ends inside its entry")
            place, left = place + got, _behind(left, got)

    def _place(self, row: int) -> int:
        return self._start + row * self.entry_bytes

    def _around(self, into: Sequence[memoryview]) -> list[memoryview]:
        """Return where an entry's bytes go: to the tensors, and what is between them nowhere."""
        return [piece for pair in zip(self._gaps, into, strict=True) for piece in pair]


def _behind(views: list[memoryview], done: int) -> list[memoryview]:
    """Return what is left to fill when so many bytes are there."""
    while views and done >= len(views[0]):
        done -= len(views[0])
        views = views[1:]
    return [views[0][done:], *views[1:]] if views else []


def _clips(header: dict[str, Any]) -> tuple[int, int]:
    """Return the number of entries, and the bytes of each, that a header tells of."""
    (tensor,) = header.values()
    rows, size = header[_CLIPS]["shape"]
    if tensor["dtype"] != "U8" or not _are_counts(rows, size) or tensor["data_offsets"] != [0, rows * size]:
        raise ValueError(f"{tensor} are no entries of clips")
    return rows, size


def _parts(entry: list[Any], entry_bytes: int) -> dict[str, Part]:
    """Return the tensors of an entry, which lie one behind the other, and nothing of size between them."""
    found: dict[str, Part] = {}
    end = 0
    for name, dtype, shape, start in entry:
        if name in found or not _are_counts(*shape, start + 1):
            raise ValueError(f"{name} of {shape} at {start}")
        size = math.prod(shape) * _DTYPES[dtype].itemsize
        if not end <= start < end + ALIGNMENT_BYTES or start + size > entry_bytes:
            raise ValueError(f"{name} of {shape} at {start} does not fit in behind {end} of {entry_bytes} bytes")
        found[name] = Part(_DTYPES[dtype], shape, size, start)
        end = start + size
    if not found:
        raise ValueError("an entry without tensors")
    return found


def _are_counts(*values: Any) -> bool:
    return all(type(value) is int and value > 0 for value in values)


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors of clips (clips, ...) by name: of the same tensors and metadata, the same bytes.

    Raises:
        ValueError: a tensor that is neither latents nor a text feature, or of a type that is not read again.
    """
    if unknown := tensors.keys() - {*_NAMES}:
        raise ValueError(f"{path} has no place for {', '.join(sorted(unknown))}: {', '.join(_NAMES)} are kept")
    entry: list[tuple[str, str, list[int], int]] = []
    size = 0
    for name in (name for name in _NAMES if name in tensors):
        shape = list(tensors[name].shape[1:])
        entry.append((name, _type_name(tensors[name].dtype), shape, size))
        size += _aligned(math.prod(shape) * tensors[name].dtype.itemsize)
    views = entries({name: tensors[name].contiguous() for name, *_ in entry})
    with path.open("wb") as file:
        file.write(_header(len(views), size, dict(metadata) | {_ENTRY: json.dumps(entry)}))
        for clip in views:
            for view in clip:
                file.write(view)
                file.write(bytes(_aligned(len(view)) - len(view)))


def _type_name(dtype: torch.dtype) -> str:
    names = {of: name for name, of in _DTYPES.items()}
    if dtype not in names:
        raise ValueError(f"tensors of {dtype} are not kept in latents: one of {', '.join(map(str, names))}")
    return names[dtype]


def _header(clips: int, size: int, metadata: dict[str, str]) -> bytes:
    tensor = {"dtype": "U8", "shape": [clips, size], "data_offsets": [0, clips * size]}
    # sorted, which safetensors itself does not do: DVC would train again for another order
    header = {"__metadata__": dict(sorted(metadata.items())), _CLIPS: tensor}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(_aligned(8 + len(text)) - 8)
    return len(text).to_bytes(8, "little") + text


def text_sha256(features: Mapping[str, memoryview]) -> str:
    """Return the hash of one clip's text features, TEXT_PARTS by name, as a shard stores them."""
    digest = hashlib.sha256()
    for name in TEXT_PARTS:
        digest.update(features[name])
    return digest.hexdigest()


class Shards:
    """The shards of a folder by number, each opened when it is needed: more of them than a process may open.

    All headers are read at the start. A shard stays open as long as there is room, and as long as it is in use.

    Args:
        folder: where they are.
        clips: how many clips are said to be in each, by its name.
        null: the null text, made last, by the encoders that must have made all.

    Raises:
        FileNotFoundError: a shard is missing.
        ValueError: as `Shard`; or it has other shapes, or was made by other encoders; the message names it.
    """

    def __init__(self, folder: Path, clips: Mapping[str, int], null: Shard):
        self.folder, self.names = folder, list(clips)
        if missing := sorted(clips.keys() - {path.name for path in folder.iterdir()}):
            lost = sum(clips[name] for name in missing)
            raise FileNotFoundError(
                f"{folder / missing[0]} does not exist, and {lost} clips are said to be there: {AGAIN}"
            )
        like = folder / min(clips)
        first = Shard(like)
        self.tensors, kind = first.tensors, first.kind
        self.sizes = np.zeros(len(clips), np.int64)
        """Clips in each."""

        def opened(number: int) -> Shard:
            shard = Shard(folder / names[number])
            _refuse_another_kind(shard, kind, like, null)
            return shard

        names = self.names  # not this object, nor `first`: they would stay, with their files
        for number in sorted(range(len(names)), key=names.__getitem__):
            self.sizes[number] = opened(number).rows
        _refuse_another_kind(null, [part for part in kind if part[0] in TEXT_PARTS], like, null)
        self._opened = lru_cache(maxsize=_files_to_keep_open())(opened)

    def __getitem__(self, number: int) -> Shard:
        """Return a shard.

        Raises:
            FileNotFoundError, ValueError: it is not what it was at the start.
        """
        return self._opened(number)

    def path(self, number: int) -> Path:
        """Return the file of a shard, by its number among `names`."""
        return self.folder / self.names[number]


def _files_to_keep_open() -> int:
    """Let this process open as many files as it may at all, and return half of that: the others are not for shards."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return min(most // 2, _MOST_OPEN) if most != resource.RLIM_INFINITY else _MOST_OPEN


def _refuse_another_kind(shard: Shard, kind: list[tuple[str, torch.dtype, list[int]]], like: Path, null: Shard) -> None:
    is_whole = shard is null or [name for name, *_ in kind] == [*_NAMES]
    if shard.kind != kind or not is_whole:
        raise ValueError(f"{shard.path} has tensors of other shapes than {like}: {AGAIN}")
    if not shard.made_by or shard.made_by != null.made_by:
        raise ValueError(
            f"{shard.path} and {null.path} were made by different encoders: {shard.made_by} and {null.made_by}"
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
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
