"""DeepSpeed ZeRO-3 from our settings. Its checkpoints are pickles and not used: see `stiv_model.checkpoints`."""

import gc
import math
import os
import random
from collections.abc import Callable
from typing import Any

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from deepspeed.runtime.utils import combine_grad_norm_groups
from deepspeed.utils import set_z3_leaf_modules

from stiv_model.adafactor import Adafactor
from stiv_model.block import StivBlock
from stiv_model.plan import micro_batch
from stiv_model.settings import RecipeSettings, TrainingSettings
from stiv_model.transformer import StivTransformer


def configuration(recipe: RecipeSettings, training: TrainingSettings) -> dict[str, Any]:
    """Return DeepSpeed's configuration."""
    zero: dict[str, Any] = {
        "stage": 3,
        "overlap_comm": training.device == "cuda",
        "contiguous_gradients": True,
        # parameters kept whole on every rank are gathered one by one after each step; a block comes in one piece
        "stage3_param_persistence_threshold": 0,
    }
    if training.offload == "cpu":
        zero |= {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    return {
        "train_micro_batch_size_per_gpu": micro_batch(recipe, training),
        "gradient_accumulation_steps": training.accumulation,
        "gradient_clipping": training.optimizer.clip_norm,
        "bf16": {"enabled": training.precision == "bfloat16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,  # our own progress is printed instead
    }


def start(training: TrainingSettings) -> None:
    """Join the other ranks, all random states set from `training.seed`."""
    random.seed(training.seed)
    np.random.seed(training.seed % 2**32)
    torch.manual_seed(training.seed)
    if training.device == "cpu":  # unless it knows its neighbours, DeepSpeed asks numactl in every backward pass
        os.environ.setdefault("LOCAL_SIZE", os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # its JIT build takes a minute and serves inference only
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("nccl" if training.device == "cuda" else "gloo", verbose=False)


def engine(model: StivTransformer, recipe: RecipeSettings, training: TrainingSettings) -> deepspeed.DeepSpeedEngine:
    """Share the model out over the ranks, with its optimizer."""
    set_z3_leaf_modules(model, [StivBlock])  # gathered and released as a whole, not layer by layer
    settings = training.optimizer
    optimizer: torch.optim.Optimizer
    if settings.kind == "adafactor":
        optimizer = Adafactor(
            model.parameters(), recipe.learning_rate, settings.beta1, settings.beta2, settings.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=recipe.learning_rate,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
        )
    shared, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=configuration(recipe, training))
    if isinstance(optimizer, Adafactor):
        optimizer.bind(shared.optimizer)
    return shared


def stop(shared: deepspeed.DeepSpeedEngine) -> None:
    """Leave the other ranks. In this order: otherwise a rank may abort at exit although all went well."""
    shared.destroy()
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def judge_before_update(shared: deepspeed.DeepSpeedEngine, judge: Callable[[float], bool]) -> None:
    """Ask `judge` about the gradient norm, the same number on all ranks, before each update; False skips it.

    DeepSpeed itself skips an update whose gradient norm is not finite, in silence: here it is told one. Replaces
    `_get_norm_groups` of its ZeRO-3 optimizer, an internal of the pinned release.
    """
    measure = shared.optimizer._get_norm_groups

    def judged() -> list[Any]:
        norms = measure()
        return norms if judge(float(combine_grad_norm_groups(norms))) else [math.inf]

    shared.optimizer._get_norm_groups = judged
