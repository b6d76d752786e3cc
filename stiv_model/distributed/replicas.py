"""What all ranks hold alike is compared across them: a bit that flipped in one rank's memory is found.

Under ZeRO stage 0 that is everything; under stages 1 and 2 the parameters that compute; under stage 3 those that
`training.persistent_parameters` leaves whole on every rank.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from torch import Tensor

from stiv_model.distributed import partitions
from stiv_model.distributed.ema import Ema

_WHOLE_NUMBERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check(engine: DeepSpeedEngine, ema: Ema) -> None:
    """Compare on all ranks together.

    Raises:
        RuntimeError: on every rank, where two hold different bits; the message names what, and what to do.
    """
    named = list(_replicas(engine, ema))
    if not named or dist.get_world_size() == 1:
        return
    mine = torch.stack([_sum_of_bits(tensor) for _, tensor in named])
    sums = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(sums, mine)
    for place, (name, _) in enumerate(named):
        found = [int(one[place]) for one in sums]
        usual = max(found, key=found.count)
        if odd := [str(rank) for rank, one in enumerate(found) if one != usual]:
            raise RuntimeError(
                f"rank {', '.join(odd)} holds other bits of {name} than the others: a memory, GPU or link went wrong. "
                "No checkpoint was made of it; the same command goes on from the last one. Look at that machine first"
            )


def _replicas(engine: DeepSpeedEngine, ema: Ema) -> Iterator[tuple[str, Tensor]]:
    """Yield what this rank and all others should hold alike, by name; the same names on all ranks."""
    stage = engine.zero_optimization_stage()
    for name, parameter in engine.module.named_parameters():
        if stage < 3 or (parameter.ds_persist and parameter.ds_status == ZeroParamStatus.AVAILABLE):
            yield name, parameter.detach()
    if stage == 0:
        for number, (master, average) in enumerate(zip(partitions.masters(engine), ema.state(), strict=True)):
            yield f"the master weights {number}", master.detach()
            yield f"their average {number}", average
            for key, value in sorted(engine.optimizer.optimizer.state.get(master, {}).items()):
                if isinstance(value, Tensor):
                    yield f"the optimizer's {key} {number}", value


def _sum_of_bits(tensor: Tensor) -> Tensor:
    """Return a number that changes with any one bit, on the default device; int64."""
    return tensor.contiguous().view(_WHOLE_NUMBERS[tensor.element_size()]).sum(dtype=torch.int64)
