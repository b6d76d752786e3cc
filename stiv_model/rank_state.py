"""The state of one rank as a safetensors file, read back by any number of ranks.

A parameter is cut into as many equal slices as there are ranks, the last ones shorter or empty; rank r writes slice r
of its weights (the float32 master), of their moving average, and of each moment that the optimizer keeps. So who wants
elements [a, b) of it knows which files hold them. What all ranks keep alike is in the file of rank 0. There is no
pickle in it.
"""

import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from safetensors import safe_open
from torch import Tensor

from stiv_model import shards
from stiv_model.ema import Ema
from stiv_model.shards import Piece

_WEIGHT, _AVERAGE, _MOMENT = "weight", "average", "moment."  # slices
_SCALAR, _TABLE = "scalar.", "table."  # whole, in the file of rank 0


def file_name(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def write(path: Path, engine: DeepSpeedEngine, ema: Ema) -> tuple[int, str]:
    """Write what this rank holds, durably, and return the bytes and the sha256 of the file.

    It streams: no copy of the state is made, and the hash is of what was meant, not of what the disk took.
    """
    tensors = dict(_state(engine, ema))
    header: dict[str, Any] = {"__metadata__": {"random": json.dumps(_random_states())}}
    end = 0
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.float32, f"{name} is {tensor.dtype}"
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for part in (len(text).to_bytes(8, "little"), text):
            digest.update(part)
            file.write(part)
        for tensor in tensors.values():
            part = tensor.detach().cpu().numpy().tobytes()
            digest.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
        return file.tell(), digest.hexdigest()


@torch.no_grad()
def read(folder: Path, ranks: int, engine: DeepSpeedEngine, ema: Ema) -> None:
    """Put what `ranks` ranks wrote into the engine and the average of this one.

    The random states are restored where the number of ranks is the same; on another they have no meaning.

    Raises:
        safetensors.SafetensorError: a file or a parameter is missing.
    """
    saved = _Saved(folder, ranks)
    zero, kinds = engine.optimizer, {name.partition("/")[0] for name in saved.file(0).keys()}  # noqa: SIM118
    rows = shards.pieces(engine, dist.get_rank())
    zero.optimizer.state.clear()
    for index, (shard, average, row) in enumerate(
        zip(zero.fp32_partitioned_groups_flat, ema.state(), rows, strict=True)
    ):
        state = zero.optimizer.state[shard]
        for kind in kinds:
            if kind.startswith(_MOMENT):
                state[kind.removeprefix(_MOMENT)] = torch.zeros_like(shard)
            elif kind.startswith(_SCALAR):
                state[kind.removeprefix(_SCALAR)] = saved.whole(kind)
        for piece in row:
            for kind, whole in _slices(shard, average, state).items():
                saved.read(kind, piece, piece.of(whole))
        zero._reassign_or_swap_out_partitioned_parameters(index)  # into the copy that computes
    for kind in kinds:
        if kind.startswith(_TABLE):
            table = {
                piece.name: saved.whole(f"{kind}/{piece.name}").to(shard.device)
                for row, shard in zip(rows, zero.fp32_partitioned_groups_flat, strict=True)
                for piece in row
            }
            zero.optimizer.param_groups[0][kind.removeprefix(_TABLE)] = table
    if ranks == dist.get_world_size():
        _restore_random_states(json.loads(saved.file(dist.get_rank()).metadata()["random"]))


def _state(engine: DeepSpeedEngine, ema: Ema) -> Iterator[tuple[str, Tensor]]:
    zero, rank = engine.optimizer, dist.get_rank()
    state: dict[str, Any] = {}
    for shard, average, row in zip(
        zero.fp32_partitioned_groups_flat, ema.state(), shards.pieces(engine, rank), strict=True
    ):
        state = zero.optimizer.state.get(shard, {})
        for kind, whole in _slices(shard, average, state).items():
            for piece in row:
                if piece.length:
                    yield f"{kind}/{piece.name}", piece.of(whole)
    if rank == 0:
        for key in sorted(state.keys() - _moments(state)):  # alike for all shards
            yield f"{_SCALAR}{key}", torch.as_tensor(state[key], dtype=torch.float32)
        for key, table in zero.optimizer.param_groups[0].items():
            if isinstance(table, dict):  # whole tensors by the name of the parameter, as Adafactor keeps them
                yield from ((f"{_TABLE}{key}/{name}", tensor) for name, tensor in table.items())


def _slices(shard: Tensor, average: Tensor, state: dict[str, Any]) -> dict[str, Tensor]:
    return {_WEIGHT: shard, _AVERAGE: average} | {f"{_MOMENT}{key}": state[key] for key in _moments(state)}


def _moments(state: dict[str, Any]) -> list[str]:
    """Return the names of what the optimizer keeps per weight; the rest, as AdamW's step, is one number."""
    return sorted(key for key, value in state.items() if isinstance(value, Tensor) and value.ndim == 1)


class _Saved:
    """The tensors of a checkpoint, whoever wrote them."""

    def __init__(self, folder: Path, ranks: int):
        self.folder, self.ranks = folder, ranks
        self.files: dict[int, Any] = {}

    def file(self, rank: int) -> Any:
        if rank not in self.files:
            self.files[rank] = safe_open(self.folder / file_name(rank), "pt")
        return self.files[rank]

    def read(self, kind: str, piece: Piece, into: Tensor) -> None:
        """Read the elements of `piece` from the slices that hold them."""
        share = -(-piece.size // self.ranks)
        done = 0
        while done < piece.length:
            rank, start = divmod(piece.start + done, share)
            count = min(piece.length - done, share - start)
            slice_of_rank = self.file(rank).get_slice(f"{kind}/{piece.name}")
            into[done : done + count] = slice_of_rank[start : start + count]
            done += count

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
