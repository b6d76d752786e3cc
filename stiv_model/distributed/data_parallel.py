"""ZeRO stage 0, plain data parallelism: every rank holds all weights and updates them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Replicated(torch.optim.Optimizer):
    """An optimizer of flat float32 master weights, of which the model's parameters are copies in its precision.

    DeepSpeed's own stage 0 has another optimizer for each precision, neither of which asks before it updates; here it
    only averages the gradients over the ranks, and this does the rest for both.

    Args:
        model: its parameters have no values yet: `copy_to_parameters` gives them those of `master`.
        make: returns the optimizer of the parameters that it is given.
        clip_norm: gradients of a larger norm are made as short as that.
    """

    def __init__(self, model: nn.Module, make: Callable[[list[Tensor]], torch.optim.Optimizer], clip_norm: float):
        self.named = dict(model.named_parameters())
        first = next(iter(self.named.values()))
        size = sum(parameter.numel() for parameter in self.named.values())
        self.master = nn.Parameter(torch.zeros(size, device=first.device))
        self.optimizer, self.clip_norm = make([self.master]), clip_norm
        self.judge: Callable[[float], bool] = lambda norm: True
        """Is asked about the gradient norm before each update; False skips it."""
        super().__init__([self.master], {})
        self.param_groups = self.optimizer.param_groups

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update master weights and parameters from the parameters' gradients, the same on all ranks."""
        gradient = torch.cat([_gradient(parameter).flatten().float() for parameter in self.named.values()])
        norm = gradient.norm()
        if not self.judge(norm.item()):
            return
        self.master.grad = gradient.mul_((self.clip_norm / (norm + 1e-6)).clamp(max=1))
        self.optimizer.step()
        self.master.grad = None
        self.copy_to_parameters()

    @torch.no_grad()
    def copy_to_parameters(self) -> None:
        """Copy the master weights to the parameters that compute, in their precision."""
        parts = self.master.split([parameter.numel() for parameter in self.named.values()])
        for parameter, part in zip(self.named.values(), parts, strict=True):
            parameter.copy_(part.view_as(parameter))


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "DeepSpeed gives those that were not used a gradient of zero"
    return parameter.grad
