"""What lies where in the flat shards into which DeepSpeed's ZeRO-3 cuts a model."""

from typing import NamedTuple

from deepspeed import DeepSpeedEngine
from torch import Tensor


class Piece(NamedTuple):
    """The elements of one parameter that lie in the shard of one rank, without the padding behind them."""

    name: str
    size: int
    """Elements of the whole parameter."""
    start: int
    """Where they begin in the parameter."""
    length: int
    offset: int
    """Where they begin in the shard."""

    def of(self, shard: Tensor) -> Tensor:
        """Return a view of these elements."""
        return shard[self.offset : self.offset + self.length]


def pieces(engine: DeepSpeedEngine, rank: int) -> list[list[Piece]]:
    """Return for each flat shard of this rank what it holds, in order.

    Reads `fp16_groups`, `fp32_partitioned_groups_flat` and `param_names` of DeepSpeed's ZeRO-3 optimizer, internals
    of the pinned release.

    Raises:
        RuntimeError: they are not as known, or hold only a part of the model.
    """
    zero = engine.optimizer
    found = []
    for parameters, shard in zip(zero.fp16_groups, zero.fp32_partitioned_groups_flat, strict=True):
        row, offset = [], 0
        for parameter in parameters:
            share, size = parameter.partition_numel(), parameter.ds_numel  # share: padding included
            start = min(rank * share, size)
            row.append(Piece(zero.param_names[parameter], size, start, min(share, size - start), offset))
            offset += share
        if offset != shard.numel():
            raise RuntimeError(
                f"a shard of DeepSpeed holds {shard.numel()} elements, not the {offset} of its parameters: "
                "training.offload to NVMe, or another release than the pinned one, cannot be saved"
            )
        found.append(row)
    unknown = set(engine.module.state_dict()) - {piece.name for row in found for piece in row}
    if unknown:
        raise RuntimeError(f"DeepSpeed does not train {', '.join(sorted(unknown))}: it would not be in the checkpoints")
    return found
