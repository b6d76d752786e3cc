"""What lies where in the partitions, flat float32 tensors, into which DeepSpeed's ZeRO cuts a model.

Stage 3 cuts each parameter into one slice per rank; stages 1 and 2 cut all parameters, one behind the other, so that
a rank holds some of them whole and at most two in part. In both, the slices of a parameter are in the order of the
ranks. Stage 0 cuts nothing: the one partition of each rank is the whole model. Of the other stages this reads
internals of the pinned release of DeepSpeed.

Shapes: N elements of a partition.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from torch import Tensor


class Piece(NamedTuple):
    """The elements of one parameter that lie in one partition of one rank, without the padding behind them."""

    name: str
    shape: torch.Size
    """Of the whole parameter."""
    start: int
    """Where they begin in the parameter."""
    length: int
    offset: int
    """Where they begin in the partition."""

    @property
    def size(self) -> int:
        """Elements of the whole parameter."""
        return math.prod(self.shape)

    def of(self, partition_N: Tensor) -> Tensor:
        """Return a view of these elements (length)."""
        return partition_N[self.offset : self.offset + self.length]


def masters(engine: DeepSpeedEngine) -> list[Tensor]:
    """Return the master weights that this rank updates, its partitions (N), float32; those on NVMe are empty (0)."""
    zero: Any = engine.optimizer
    if not is_cut(engine):
        return [zero.master]
    return zero.fp32_partitioned_groups_flat if _is_stage_3(engine) else zero.single_partition_of_fp32_groups


def is_cut(engine: DeepSpeedEngine) -> bool:
    """Return whether the ranks hold different partitions; else all hold the same, the whole model."""
    return engine.zero_optimization_stage() > 0


def is_copy(engine: DeepSpeedEngine) -> bool:
    """Return whether the partitions of this rank are what the first rank has already."""
    return not is_cut(engine) and dist.get_rank() > 0


def sizes(engine: DeepSpeedEngine) -> list[int]:
    """Return the elements of each partition of this rank, padding included, also of those on NVMe."""
    if _is_stage_3(engine):
        return [int(size) for size in engine.optimizer.fp16_partitioned_groups_flat_numel]
    return [master.numel() for master in masters(engine)]


def visit(engine: DeepSpeedEngine, writes: bool = False) -> Iterator[tuple[list[Piece], Tensor]]:
    """Yield for each partition of this rank what it holds, in order, and its master weights (N), float32.

    One that is offloaded to NVMe is in memory, with the state that the optimizer keeps for it, until the next one is
    asked for.

    Args:
        writes: what was written to them is kept, and put into the copies that compute. All ranks must then go through
            all of their partitions together.
    """
    zero: Any = engine.optimizer
    if writes and _is_stage_3(engine):
        zero._partition_all_parameters()
    yield from zip(pieces(engine, dist.get_rank()), each(engine, writes), strict=True)
    if writes and not is_cut(engine):
        zero.copy_to_parameters()
    elif writes and not _is_stage_3(engine):
        zero.update_lp_params()
    elif writes and zero.persistent_parameters:  # whole on every rank between the steps
        zero.persistent_parameters[0].all_gather(zero.persistent_parameters)


def each(engine: DeepSpeedEngine, writes: bool = False) -> Iterator[Tensor]:
    """Yield the master weights (N) of each partition of this rank, float32, in order, as `visit` does.

    Args:
        writes: what was written to them is kept, but is not yet where every copy that computes is.
    """
    zero, is_stage_3 = engine.optimizer, _is_stage_3(engine)
    for index, master in enumerate(masters(engine)):
        is_away = is_stage_3 and zero._swappable_optimizer_subgroup(index)
        if is_away:
            zero._optimizer_states_and_gradient_swap_in(index)
        yield master
        if writes and is_stage_3:
            zero._reassign_or_swap_out_partitioned_parameters(index)
        if is_away:
            (zero._optimizer_states_and_gradient_swap_out if writes else zero._release_swap_buffers)(index)


def pieces(engine: DeepSpeedEngine, rank: int) -> list[list[Piece]]:
    """Return for each partition of a rank what it holds, in order.

    Raises:
        RuntimeError: they are not as known, or hold only a part of the model.
    """
    if not is_cut(engine):
        found = [_all(engine)]
    else:
        found = _slices_of_each(engine, rank) if _is_stage_3(engine) else _slices_of_all(engine, rank)
    for row, size in zip(found, sizes(engine), strict=True):
        end = max((piece.offset + piece.length for piece in row), default=0)
        if end > size:
            raise RuntimeError(
                f"a partition of DeepSpeed holds {size} elements, not the {end} of its parameters: this is not the "
                "pinned release"
            )
    unknown = set(engine.module.state_dict()) - {piece.name for row in found for piece in row}
    if unknown:
        raise RuntimeError(f"DeepSpeed does not train {', '.join(sorted(unknown))}: it would not be in the checkpoints")
    return found


def _is_stage_3(engine: DeepSpeedEngine) -> bool:
    return engine.zero_optimization_stage() == 3


def _all(engine: DeepSpeedEngine) -> list[Piece]:
    row, offset = [], 0
    for name, parameter in engine.optimizer.named.items():
        row.append(Piece(name, parameter.shape, 0, parameter.numel(), offset))
        offset += parameter.numel()
    return row


def _slices_of_each(engine: DeepSpeedEngine, rank: int) -> list[list[Piece]]:
    zero: Any = engine.optimizer
    found = []
    for parameters in zero.fp16_groups:
        row, offset = [], 0
        for parameter in parameters:
            share, size = parameter.partition_numel(), parameter.ds_numel  # share: padding included
            start = min(rank * share, size)
            row.append(Piece(zero.param_names[parameter], parameter.ds_shape, start, min(share, size - start), offset))
            offset += share
        found.append(row)
    return found


def _slices_of_all(engine: DeepSpeedEngine, rank: int) -> list[list[Piece]]:
    zero: Any = engine.optimizer
    found = []
    for index, parameters in enumerate(zero.bit16_groups):
        share = zero.bit16_groups_flat[index].numel() // dist.get_world_size(zero.dp_process_group)
        row, begin = [], -rank * share  # of the parameter, as seen from the partition
        for parameter in parameters:
            size = parameter.numel()
            start, end = (min(max(edge - begin, 0), size) for edge in (0, share))
            row.append(
                Piece(zero.param_names[parameter], parameter.shape, start, end - start, min(max(begin, 0), share))
            )
            begin += size
        found.append(row)
    return found
