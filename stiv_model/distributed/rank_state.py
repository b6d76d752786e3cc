"""The state of one rank as a safetensors file, read back by any number of ranks.

A parameter is cut into slices, one for each rank and in their order, some of them empty; a rank writes its slice of the
weights (the float32 master), of their moving average, and of each moment that the optimizer (Adam) keeps. So who wants
elements [a, b) of it finds them from the lengths of the slices, however they were cut: ranks and ZeRO stage may have
been others. What all ranks keep alike, under stage 0 everything, is in the file of rank 0. There is no pickle in it.
"""

import hashlib
import json
import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stiv_model.distributed import partitions
from stiv_model.distributed.ema import Ema
from stiv_model.distributed.partitions import Piece
from stiv_model.weights.streaming_file import StreamedFile

_WEIGHT, _AVERAGE, _MOMENT = "weight", "average", "moment."  # slices
_ELEMENT_BYTES = 4  # all of it is float32
_SCALAR, _TABLE = "scalar.", "table."  # whole, in the file of rank 0


def file_name(rank: int) -> str:
    """Return the name of the file of a rank in the folder of a checkpoint."""
    return f"rank-{rank:05d}.safetensors"


def write(path: Path, engine: DeepSpeedEngine, ema: Ema) -> tuple[int, str]:
    """Write what this rank holds, durably, and return the size in bytes and the sha256 of the file.

    It streams: no copy of the state is made, and the hash is of what was meant, not of what the disk took.
    """
    rows = partitions.pieces(engine, dist.get_rank())
    shapes = {name: shape for name, shape, _ in _state(engine, ema, zip(rows, partitions.masters(engine), strict=True))}
    digest = hashlib.sha256()
    with StreamedFile(path, shapes, {"random": json.dumps(_random_states())}, digest.update) as file:
        for name, _, tensor in _state(engine, ema, partitions.visit(engine)):
            file.put(name, tensor)
    return path.stat().st_size, digest.hexdigest()


def size_bytes(engine: DeepSpeedEngine, ema: Ema) -> int:
    """Return the bytes of the tensors that `write` would write on this rank; nothing is fetched from NVMe."""
    rows = partitions.pieces(engine, dist.get_rank())
    state = _state(engine, ema, zip(rows, partitions.masters(engine), strict=True))
    return sum(math.prod(shape) * _ELEMENT_BYTES for _, shape, _ in state)


@torch.no_grad()
def read(folder: Path, ranks: int, engine: DeepSpeedEngine, ema: Ema) -> None:
    """Put what `ranks` ranks wrote into the engine and the average of this one.

    The random states are restored where the number of ranks is the same; on another they have no meaning.

    Raises:
        safetensors.SafetensorError: a file or a parameter is missing.
    """
    saved = _Saved(folder, ranks)
    optimizer, kinds = engine.optimizer.optimizer, {name.partition("/")[0] for name in saved.file(0).keys()}  # noqa: SIM118
    before = dict(optimizer.state)
    optimizer.state.clear()
    tables: dict[str, dict[str, Tensor]] = {kind.removeprefix(_TABLE): {} for kind in kinds if kind.startswith(_TABLE)}
    for (row, master), average in zip(partitions.visit(engine, writes=True), ema.state(), strict=True):
        state, kept = optimizer.state[master], before.get(master, {})
        for kind in kinds:
            if kind.startswith(_MOMENT):
                key = kind.removeprefix(_MOMENT)
                state[key] = kept.get(key, torch.zeros_like(master))  # DeepSpeed knows those on NVMe by their identity
            elif kind.startswith(_SCALAR):
                state[kind.removeprefix(_SCALAR)] = saved.whole(kind)
        for piece in row:
            for kind, whole in _slices(master, average, state).items():
                saved.read(kind, piece, piece.of(whole))
            for key, table in tables.items():
                table[piece.name] = saved.whole(f"{_TABLE}{key}/{piece.name}").to(master.device)
    optimizer.param_groups[0].update(tables)
    if ranks == dist.get_world_size():
        _restore_random_states(json.loads(saved.file(dist.get_rank()).metadata()["random"]))


def _state(
    engine: DeepSpeedEngine, ema: Ema, masters: Iterable[tuple[list[Piece], Tensor]]
) -> Iterator[tuple[str, list[int], Tensor]]:
    """Yield name, shape and value of each tensor of this rank's state; the value only of what is in memory."""
    optimizer = engine.optimizer.optimizer
    state: dict[str, Any] = {}
    for (row, master), average in zip(masters, ema.state(), strict=True):
        state = optimizer.state.get(master, {})
        for kind, whole in _slices(master, average, state).items():
            for piece in row:
                if piece.length and not partitions.is_copy(engine):
                    yield f"{kind}/{piece.name}", [piece.length], piece.of(whole)
    if dist.get_rank() == 0:
        for key in sorted(state.keys() - _moments(state)):  # alike for all partitions
            scalar = torch.as_tensor(state[key], dtype=torch.float32)
            yield f"{_SCALAR}{key}", list(scalar.shape), scalar
        for key, table in optimizer.param_groups[0].items():
            if isinstance(table, dict):  # whole tensors by the name of the parameter, as Adafactor keeps them
                for name, tensor in table.items():
                    yield f"{_TABLE}{key}/{name}", list(tensor.shape), tensor


def _slices(master: Tensor, average: Tensor, state: dict[str, Any]) -> dict[str, Tensor]:
    return {_WEIGHT: master, _AVERAGE: average} | {f"{_MOMENT}{key}": state[key] for key in _moments(state)}


def _moments(state: dict[str, Any]) -> list[str]:
    """Return the names of what the optimizer keeps per weight; the rest, as AdamW's step, is one number."""
    return sorted(key for key, value in state.items() if isinstance(value, Tensor) and value.ndim == 1)


class _Saved:
    """The tensors of a checkpoint, whoever wrote them."""

    def __init__(self, folder: Path, ranks: int):
        self.folder, self.ranks = folder, ranks
        self.files: dict[int, Any] = {}
        self.lengths: dict[int, dict[str, int]] = {}

    def file(self, rank: int) -> Any:
        if rank not in self.files:
            self.files[rank] = safe_open(self.folder / file_name(rank), "pt")
        return self.files[rank]

    def read(self, kind: str, piece: Piece, into: Tensor) -> None:
        """Read the elements of `piece` from the slices that hold them.

        Raises:
            safetensors.SafetensorError: not all of them are there.
        """
        name, begin, rank, end = f"{kind}/{piece.name}", 0, 0, piece.start + piece.length
        while begin < end:
            if rank == self.ranks:
                raise SafetensorError(f"{self.folder} holds {begin} of the {piece.size} elements of {name}")
            if length := self.length(rank, name):
                first, last = max(piece.start, begin), min(end, begin + length)
                if first < last:
                    slice_of_rank = self.file(rank).get_slice(name)
                    into[first - piece.start : last - piece.start] = slice_of_rank[first - begin : last - begin]
                begin += length
            rank += 1

    def length(self, rank: int, name: str) -> int:
        """Return the elements of a tensor in the file of a rank; one without any is not in it."""
        if rank not in self.lengths:
            file = self.file(rank)
            self.lengths[rank] = {key: math.prod(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        return self.lengths[rank].get(name, 0)

    def whole(self, name: str) -> Tensor:
        return self.file(0).get_tensor(name).clone()  # else all that ask share the memory of the file


def _random_states() -> dict[str, Any]:
    numpy: Any = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": numpy | {"state": numpy["state"] | {"key": numpy["state"]["key"].tolist()}},
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else None,
    }


def _restore_random_states(saved: dict[str, Any]) -> None:
    version, key, gauss = saved["python"]
    random.setstate((version, tuple(key), gauss))
    np.random.set_state(saved["numpy"])
    torch.set_rng_state(torch.tensor(saved["torch"], dtype=torch.uint8))
    if saved["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(saved["cuda"], dtype=torch.uint8))
