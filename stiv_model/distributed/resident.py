"""ZeRO-3 of parameters that stay whole on every rank between the steps (`training.persistent_parameters`).

DeepSpeed gathers each of them by a collective of its own after every update, and reduces gradients by a chain of hooks
per parameter; for a small model that costs as much as the arithmetic. Here one collective gathers all that stay whole.
Where every parameter does (`zero_sizes.stays_whole`), one more scatters all gradients, and the hooks go: master
weights, the optimizer's state and the averaged gradients are cut among the ranks as ever.

Replaces methods and removes hooks of DeepSpeed's optimizer, internals of the pinned release.

Shapes: R ranks, N elements of a rank's partition.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from torch import Tensor


def settle(engine: DeepSpeedEngine) -> None:
    """Keep all parameters of an engine whole, as `deepspeed.initialize` returns it, and take their hooks away."""
    zero: Any = engine.optimizer
    zero.parameter_offload.destroy()  # of the hooks that gather and release
    for hook in (*zero._grad_acc_hooks, *zero._leaf_module_hooks):
        hook.remove()
    engine._forward_prologue = lambda inputs, kwargs: None  # they prepare the modules for parameters that are away
    engine._forward_epilogue = lambda: None
    groups = [_Group(zero, index) for index in range(len(zero.fp16_groups))]

    def gather(*_: Any) -> None:
        for group in groups:
            group.gather()

    def reduce() -> None:
        for index, group in enumerate(groups):
            earlier, now_N = zero.averaged_gradients.get(index), group.reduce()
            zero.averaged_gradients[index] = [earlier[0].add_(now_N) if earlier else now_N]  # of earlier micro-batches

    def norm() -> list[Tensor]:
        squares = torch.stack([parts[0].float().square().sum() for parts in zero.averaged_gradients.values()]).sum()
        dist.all_reduce(squares)
        return [squares.sqrt()]

    zero.independent_gradient_partition_epilogue = reduce
    zero._get_norm_groups = norm
    zero._partition_all_parameters = lambda: None
    zero._unflatten_partitioned_parameters = lambda index: None  # they lie in the partitions already
    zero.persistent_parameters[0].all_gather = gather  # called after an update for all of them
    gather()


def gather_together(engine: DeepSpeedEngine) -> None:
    """Make DeepSpeed gather the parameters that stay whole by one collective after an update, not by one for each."""
    first = engine.optimizer.persistent_parameters[0]
    first.all_gather = lambda parameters: first.all_gather_coalesced(parameters).wait()


class _Group:
    """The parameters of one partition: whole in one buffer on every rank, one slice (N) of each from every rank."""

    def __init__(self, zero: Any, index: int):
        self.parameters: list[Any] = zero.fp16_groups[index]
        self.partition_N: Tensor = zero.fp16_partitioned_groups_flat[index]
        self.ranks = dist.get_world_size()
        self.exchanged_RN = self.partition_N.new_zeros(self.ranks, self.partition_N.numel())
        self.whole = torch.empty_like(self.exchanged_RN).flatten()
        self.shares = [parameter.partition_numel() for parameter in self.parameters]
        slices = [*self._slices()]
        self.gathered = [slice_RN for _, slice_RN, _ in slices]
        """Of `exchanged_RN`, for each parameter the slices (R, share) of all ranks, padding included."""
        self.homes = [home.view(self.ranks, -1) for *_, home in slices]
        """Of `whole`, where they belong."""
        for parameter, _, home in slices:
            parameter.data = home[: parameter.ds_numel].view(parameter.ds_shape)
            parameter.ds_status = ZeroParamStatus.AVAILABLE
        cuts = [
            (part_N, min(share, max(0, parameter.ds_numel - rank * share)))
            for parameter, share, part_RN in zip(self.parameters, self.shares, self.gathered, strict=True)
            for rank, part_N in enumerate(part_RN)
        ]
        self.scattered = [part_N[:length] for part_N, length in cuts]
        """The same slices one by one, without padding."""
        self.padding = [part_N[length:] for part_N, length in cuts]

    def _slices(self) -> Iterator[tuple[Any, Tensor, Tensor]]:
        offset = 0
        for parameter, share in zip(self.parameters, self.shares, strict=True):
            home = self.whole[self.ranks * offset : self.ranks * (offset + share)]
            yield parameter, self.exchanged_RN[:, offset : offset + share], home
            offset += share

    @torch.no_grad()
    def gather(self) -> None:
        """Give the parameters the values that the partitions of all ranks have."""
        dist.all_gather_single(self.exchanged_RN.view(-1), self.partition_N)
        torch._foreach_copy_(self.homes, self.gathered)

    @torch.no_grad()
    def reduce(self) -> Tensor:
        """Return this rank's slices of the gradients, averaged over the ranks (N), and forget the gradients."""
        gradients = [
            piece
            for parameter, share in zip(self.parameters, self.shares, strict=True)
            for piece in _split(_gradient(parameter), share, self.ranks)
        ]
        torch._foreach_copy_(self.scattered, gradients)
        torch._foreach_zero_(self.padding)
        for parameter in self.parameters:
            parameter.grad = None
        mine_N = torch.empty_like(self.partition_N)
        dist.reduce_scatter_single(mine_N, self.exchanged_RN.div_(self.ranks).view(-1))
        return mine_N


def _gradient(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter; of one that the loss does not depend on, such as the mask token, zeros."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _split(gradient: Tensor, share: int, ranks: int) -> list[Tensor]:
    flat = gradient.flatten()
    return [flat[rank * share : (rank + 1) * share] for rank in range(ranks)]
