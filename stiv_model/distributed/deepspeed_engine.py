"""DeepSpeed ZeRO from our settings. Its checkpoints are pickles and not used: `checkpoints.py` has our own."""

import gc
import math
import os
import random
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from deepspeed.accelerator import get_accelerator
from deepspeed.ops.op_builder import AsyncIOBuilder
from deepspeed.runtime.utils import combine_grad_norm_groups
from deepspeed.utils import set_z3_leaf_modules
from torch import Tensor

from stiv_model.distributed import partitions, resident, zero_sizes
from stiv_model.distributed.adafactor import Adafactor
from stiv_model.distributed.data_parallel import Replicated
from stiv_model.distributed.local_ranks import RENDEZVOUS
from stiv_model.latents.data_plan import micro_batch
from stiv_model.network.block import StivBlock
from stiv_model.network.transformer import StivTransformer
from stiv_model.settings import ModelSettings, OptimizerSettings, RecipeSettings, TrainingSettings
from stiv_model.weights.initialisation import Take


def configuration(model: StivTransformer, recipe: RecipeSettings, training: TrainingSettings) -> dict[str, Any]:
    """Return DeepSpeed's configuration; the sizes in it are those that `memory_estimate.per_gpu` counts."""
    block = zero_sizes.block_parameters(model)
    zero: dict[str, Any] = {
        "stage": training.zero_stage,
        "overlap_comm": training.device == "cuda",
        "contiguous_gradients": True,
        "reduce_bucket_size": block,
        "sub_group_size": zero_sizes.SUB_GROUP,
        "stage3_param_persistence_threshold": training.persistent_parameters,
        "stage3_prefetch_bucket_size": block,
        "stage3_max_live_parameters": zero_sizes.live_parameters(model),
        "stage3_max_reuse_distance": block,  # the last block of forward is the first of backward
        "memory_efficient_linear": not zero_sizes.stays_whole(model, training),
    }
    if training.offload != "none":
        zero["offload_optimizer"] = {"device": training.offload, "nvme_path": training.nvme_path}
    if training.offload != "none" and training.zero_stage == 3:
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": micro_batch(recipe, training),
        "gradient_accumulation_steps": training.accumulation,
        "gradient_clipping": training.optimizer.clip_norm if training.zero_stage else 0.0,
        "bf16": {"enabled": training.zero_stage > 0 and training.precision == "bfloat16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,  # our own progress is printed instead
    }


def start(training: TrainingSettings) -> None:
    """Join the other ranks, all random states set from `training.seed`.

    Raises:
        ValueError: this machine cannot do what `training.offload` asks for.
    """
    if training.offload == "nvme" and not AsyncIOBuilder().is_compatible():
        raise ValueError(
            "training.offload is nvme, which needs libaio with its headers (Debian: libaio-dev) and a C++ compiler: "
            "install them on every node, or set training.offload to cpu"
        )
    random.seed(training.seed)
    np.random.seed(training.seed % 2**32)
    torch.manual_seed(training.seed)
    if training.device == "cpu":  # unless it knows its neighbours, DeepSpeed asks numactl in every backward pass
        os.environ.setdefault("LOCAL_SIZE", os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # its JIT build takes a minute and serves inference only
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        "nccl" if training.device == "cuda" else "gloo",
        verbose=False,
        init_method=os.environ.get(RENDEZVOUS),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )


def build(
    settings: ModelSettings, is_video: bool, recipe: RecipeSettings, training: TrainingSettings
) -> StivTransformer:
    """Return a model for `engine` whose weights have no values yet: `start_from` sets them.

    Under ZeRO-3 each rank holds only its slice of each parameter, in `training.precision`, and the parameters of no
    more than one layer are whole at any moment.
    """
    with torch.device("meta"):
        # random numbers that nobody keeps would load torch's compiler on every rank, for seconds
        model = StivTransformer(settings, is_video, is_filled=False).to(getattr(torch, training.precision))
    device = get_accelerator().current_device_name()
    if training.zero_stage < 3:
        return model.to_empty(device=device)
    how = configuration(model, recipe, training)
    first: Any = None
    for module in reversed([*model.modules()]):  # what is inside a module comes before it
        module.to_empty(device=device, recurse=False)
        own = [*module.parameters(recurse=False)]
        if first is not None:
            first.convert_to_zero_parameters(own)
        elif own:
            deepspeed.zero.Init(module=module, config_dict_or_path=how)
            first = own[0]
    return model


def start_from(engine: DeepSpeedEngine, source: Callable[[Take], None]) -> None:
    """Set the weights of an engine, the float32 ones exactly, whatever `training.precision` is.

    Args:
        source: hands each parameter, by name and whole, to what it is given: the same on every rank, which keeps its
            own slice.

    Raises:
        ValueError: a parameter is missing, unknown or of another shape.
    """
    # DeepSpeed leaves the padding behind a slice as it finds it; those on NVMe are put together in host memory
    homes = [
        master.data.zero_() if master.numel() else torch.zeros(size)
        for master, size in zip(partitions.masters(engine), partitions.sizes(engine), strict=True)
    ]
    rows = partitions.pieces(engine, dist.get_rank())
    place = {piece.name: (piece, home) for row, home in zip(rows, homes, strict=True) for piece in row}

    def take(name: str, value: Tensor) -> None:
        if name not in place:
            raise ValueError(f"{name} is given once more than the model has it")
        piece, home = place.pop(name)
        if value.shape != piece.shape:
            raise ValueError(f"{name} is given as {tuple(value.shape)}, the model has {tuple(piece.shape)}")
        piece.of(home).copy_(value.flatten()[piece.start : piece.start + piece.length])

    source(take)
    if place:
        raise ValueError(f"{len(place)} parameters are not given: {', '.join(sorted(place)[:3])}")
    for home, (_, master) in zip(homes, partitions.visit(engine, writes=True), strict=True):
        master.data.copy_(home)


def engine(model: StivTransformer, recipe: RecipeSettings, training: TrainingSettings) -> DeepSpeedEngine:
    """Share the model out over the ranks, with its optimizer."""
    is_resident = zero_sizes.stays_whole(model, training)
    if training.zero_stage == 3 and not is_resident:
        set_z3_leaf_modules(model, [StivBlock])  # gathered and released as a whole, not layer by layer
    make = partial(_optimizer, recipe, training.optimizer)
    optimizer: torch.optim.Optimizer
    if training.zero_stage:
        inner = optimizer = make([*model.parameters()])
    else:
        optimizer = Replicated(model, make, training.optimizer.clip_norm)
        inner = optimizer.optimizer
    # what it would compile as it is imported, its Muon, loads torch's compiler on every rank, for seconds
    with patch.object(deepspeed.runtime.compiler, "compile", lambda *_, **__: lambda function: function):
        made, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=configuration(model, recipe, training))
    if isinstance(inner, Adafactor):
        inner.bind(made)
    if is_resident:
        resident.settle(made)
    elif training.zero_stage == 3 and made.optimizer.persistent_parameters:
        resident.gather_together(made)
    return made


def _optimizer(recipe: RecipeSettings, settings: OptimizerSettings, weights: list[Tensor]) -> torch.optim.Optimizer:
    betas = settings.beta1, settings.beta2
    if settings.kind == "adafactor":
        return Adafactor(weights, recipe.learning_rate, *betas, settings.weight_decay)
    return torch.optim.AdamW(weights, lr=recipe.learning_rate, betas=betas, weight_decay=settings.weight_decay)


def stop(engine: DeepSpeedEngine) -> None:
    """Leave the other ranks. In this order: otherwise a rank may abort at exit although all went well."""
    engine.destroy()
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def judge_before_update(engine: DeepSpeedEngine, judge: Callable[[float], bool]) -> None:
    """Ask `judge` about the gradient norm, the same number on all ranks, before each update; False skips it.

    DeepSpeed itself skips an update whose gradient norm is not finite, in silence, and under ZeRO-1 and -2 with bf16 it
    does not even do that: here it is given one, and made to heed it. Replaces the methods of its optimizer that measure
    the norm, internals of the pinned release.
    """
    zero: Any = engine.optimizer
    if engine.zero_optimization_stage() == 0:
        zero.judge = judge
        return
    if engine.zero_optimization_stage() == 3:
        measure = zero._get_norm_groups
        zero._get_norm_groups = lambda: norms if judge(_norm(norms := measure())) else [math.inf]
        return
    measure_whole = zero.scaled_global_norm
    zero.scaled_global_norm = lambda: norm if judge(float(norm := measure_whole())) else torch.tensor(math.inf)
    zero.check_grad_overflow = True  # makes it skip an update whose norm is not finite ...
    zero.check_overflow = lambda **_: None  # ... and look for such gradients before: the judge would not be asked


def _norm(groups: list[Any]) -> float:
    return float(combine_grad_norm_groups(groups))
