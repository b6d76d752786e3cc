"""DeepSpeed ZeRO-3: its configuration from our settings, and checkpoints that are whole or absent.

A checkpoint is written aside, hashed file by file and renamed; the newest one whose hashes agree is used, a
damaged one is named and passed over. DeepSpeed's files are pickles: every process loads them with torch's
weights-only unpickler (`TORCH_FORCE_WEIGHTS_ONLY_LOAD`, set by whoever starts the ranks).
"""

import gc
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils import set_z3_leaf_modules

from stiv_model.block import StivBlock
from stiv_model.ema import Ema
from stiv_model.plan import micro_batch
from stiv_model.settings import RecipeSettings, TrainingSettings
from stiv_model.transformer import StivTransformer

log = logging.getLogger(__name__)

_MANIFEST = "MANIFEST.json"


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
        "checkpoint": {"tag_validation": "Fail"},
    }


def start(training: TrainingSettings) -> None:
    """Join the other ranks."""
    # its JIT build takes a minute and serves inference only
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("nccl" if training.device == "cuda" else "gloo", verbose=False)
    torch.serialization.add_safe_globals([ZeroStageEnum, LossScaler])


def engine(model: StivTransformer, recipe: RecipeSettings, training: TrainingSettings) -> deepspeed.DeepSpeedEngine:
    """Share the model out over the ranks, with its optimizer."""
    set_z3_leaf_modules(model, [StivBlock])  # gathered and released as a whole, not layer by layer
    settings = training.optimizer
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
    )
    shared, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=configuration(recipe, training))
    return shared


def stop(shared: deepspeed.DeepSpeedEngine) -> None:
    """Leave the other ranks. In this order: otherwise a rank may abort at exit although all went well."""
    shared.destroy()
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def save(folder: Path, shared: deepspeed.DeepSpeedEngine, ema: Ema, step: int, keep: int) -> None:
    """Write the state of all ranks after `step` steps as `folder`/step-N, and delete all but the newest `keep`."""
    tag = f"step-{step:08d}"
    aside = folder / f"{tag}.tmp"
    if dist.get_rank() == 0 and aside.exists():
        shutil.rmtree(aside)
    dist.barrier()
    shared.save_checkpoint(str(folder), tag=aside.name, client_state={"step": step}, save_latest=False)
    torch.save(ema.state(), aside / _ema_file())
    dist.barrier()
    if dist.get_rank() == 0:
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        hashes = {str(path.relative_to(aside)): _fsync_and_hash(path) for path in files}
        manifest = aside / _MANIFEST
        manifest.write_text(json.dumps({"step": step, "sha256": hashes}, indent=2))
        _fsync_and_hash(manifest)
        if (folder / tag).exists():
            shutil.rmtree(folder / tag)
        aside.rename(folder / tag)
        for old in sorted(folder.glob("step-????????"))[:-keep]:
            shutil.rmtree(old)
    dist.barrier()


def resume(folder: Path, shared: deepspeed.DeepSpeedEngine, ema: Ema) -> int:
    """Load the newest whole checkpoint, and return after how many steps it was written; 0 without one."""
    # one rank looks, so that all load the same
    newest: list[str | None] = [_newest_whole(folder) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(newest)
    if newest[0] is None:
        return 0
    _, state = shared.load_checkpoint(str(folder), tag=newest[0])
    ema.load(torch.load(folder / newest[0] / _ema_file(), weights_only=True))
    return state["step"]


def _newest_whole(folder: Path) -> str | None:
    for path in sorted(folder.glob("step-????????"), reverse=True):
        damage = _damage(path)
        if damage is None:
            return path.name
        log.warning("checkpoint %s is damaged (%s): the one before it is used", path, damage)
    return None


def _damage(path: Path) -> str | None:
    """Say what is wrong with a checkpoint folder, None when nothing is."""
    try:
        hashes = json.loads((path / _MANIFEST).read_text())["sha256"]
    except (OSError, ValueError, KeyError) as error:
        return f"{_MANIFEST}: {error}"
    for name, wanted in hashes.items():
        if not (path / name).exists():
            return f"{name} is missing"
        if _hash(path / name) != wanted:
            return f"{name} is not what was written"
    return None


def _ema_file() -> str:
    return f"ema_rank_{dist.get_rank():04d}.pt"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync_and_hash(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return _hash(path)
