"""What one GPU holds of a model that ZeRO shares out, before any sample."""

import math
from typing import NamedTuple

import torch

from stiv_model.distributed.zero_sizes import SUB_GROUP, block_parameters, elements, live_parameters, stays_whole
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import TrainingSettings

_STAGE_0_BUCKET = 500_000_000  # parameters whose gradients DeepSpeed copies together to average them


class GpuBytes(NamedTuple):
    """Memory of one GPU under ZeRO, before any sample. Not counted: see `per_gpu`."""

    parameters: int
    gradients: int
    optimizer: int
    """Float32 weights and Adam's moments."""
    ema: int
    gathered: int
    """Parameters that are whole while they are used or will be next, and those that always are."""
    buckets: int
    """The whole gradients of one block, or of all where they are exchanged at once, and the buffer for the exchange."""
    update: int
    """Float32 gradients of one sub-group, and as much again for what the optimizer computes from them."""


def per_gpu(model: StivTransformer, training: TrainingSettings, world: int) -> GpuBytes:
    """Return the memory of one of `world` GPUs that DeepSpeed's ZeRO and our EMA share the model out to.

    Where that is with `training.offload`: `offloaded`. Not counted: temporary buffers of kernels and of NCCL,
    fragmentation, the CUDA context.
    """
    size = getattr(torch, training.precision).itemsize
    holders = world if training.zero_stage else 1
    partition = sum(math.ceil(parameter.numel() / holders) for parameter in model.parameters())
    whole, block = elements(model), block_parameters(model)
    gradient = size if training.offload == "none" else 4  # on the host they are added up in float32
    always = sum(p.numel() for p in model.parameters() if p.numel() <= training.persistent_parameters)
    is_partitioned = training.zero_stage == 3
    buckets = 2 * size * block if training.zero_stage else size * min(whole, _STAGE_0_BUCKET)
    if stays_whole(model, training):  # the gradients whole, and beside them as they are exchanged
        buckets = 2 * size * whole
    return GpuBytes(
        parameters=size * (partition if is_partitioned else whole),
        gradients=gradient * (whole if training.zero_stage == 1 else partition),
        # DeepSpeed keeps float32 weights apart even where the parameters are float32 themselves
        optimizer=4 * _optimizer_values(model, training.optimizer.kind, partition),
        ema=4 * partition,
        gathered=size * min(whole, live_parameters(model) + always) if is_partitioned else 0,
        buckets=buckets,
        update=2 * 4 * (min(partition, SUB_GROUP) if training.zero_stage else whole),
    )


def offloaded(training: TrainingSettings) -> str:
    """Say which of the fields of `GpuBytes` are not in the GPU's memory."""
    parts = ["gradients", "optimizer", "ema", "update"]
    if training.zero_stage == 3:
        parts.insert(0, "parameters")
    match training.offload:
        case "none":
            return "all is GPU memory"
        case "cpu":
            return f"{', '.join(parts)} are host memory"
        case "nvme":
            return (
                f"optimizer is on the drive, {', '.join(part for part in parts if part != 'optimizer')} are host memory"
            )


def _optimizer_values(model: StivTransformer, kind: str, partition: int) -> int:
    """Return the float32 values that the optimizer keeps on one rank, the float32 weights among them."""
    if kind == "adamw":
        return 3 * partition
    # one momentum, and vectors of rows and columns that are whole on every rank
    return 2 * partition + sum(p.shape[0] + p.numel() // p.shape[0] for p in model.parameters())
