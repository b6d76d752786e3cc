"""Numbers of parameters that DeepSpeed's ZeRO is configured with, and that estimates of memory count."""

from torch import nn

from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import TrainingSettings

SUB_GROUP = 100_000_000
"""Parameters of one rank's share that the optimizer updates at once, at most and roughly."""


def elements(module: nn.Module) -> int:
    """Return the parameters of a module, also where DeepSpeed has cut them into slices."""
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in module.parameters())


def block_parameters(model: StivTransformer) -> int:
    """Return the parameters of one block: what ZeRO-3 gathers, and all stages reduce, in one piece."""
    return elements(model.main_blocks[0])


def live_parameters(model: StivTransformer) -> int:
    """Return how many parameters ZeRO-3 may hold whole at once: two blocks, and all that is outside of blocks."""
    blocks = (*model.main_blocks, *model.unmasked_blocks)
    return elements(model) - sum(map(elements, blocks)) + sum(map(elements, blocks[:2]))


def stays_whole(model: StivTransformer, training: TrainingSettings) -> bool:
    """Return whether ZeRO-3 leaves every parameter whole on every rank between the steps: `resident` takes over."""
    largest = max(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters())
    return training.zero_stage == 3 and training.offload == "none" and largest <= training.persistent_parameters
