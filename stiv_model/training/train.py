"""Train one recipe: `torchrun -m stiv_model.training.train WORK`, the same command on every rank.

WORK holds run.json (what to do), plan.json (with which data), where the run has a parent start/
(`stiv_model.weights.warm_start`), and where it validates the features of its prompts
(`stiv_model.training.prompt_features`). It gets what `stiv_model.monitoring.run_log` writes, checkpoints/ (to go on
from), and at the end weights/ (the EMA weights). Every random draw is a function of the seed and of the sample's
position in the run: a run that was killed goes on with the same samples, noise and times.
"""

from stiv_model.process_exit import die_with_parent

if __name__ == "__main__":
    die_with_parent()  # else a rank goes on when its launcher is killed; before the imports, which take seconds

import fcntl
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TextIO

import torch
import torch.distributed as dist

from stiv_model import process_exit
from stiv_model.distributed import deepspeed_engine
from stiv_model.distributed.ema import Ema
from stiv_model.latents import data_plan
from stiv_model.latents.dataset import LatentData
from stiv_model.network import sequence_parallel
from stiv_model.settings import Run, TrainingSettings
from stiv_model.training import stop_request
from stiv_model.training.loop import Loop
from stiv_model.weights import files, initialisation, warm_start
from stiv_model.weights.certificate import START


def train(work: Path) -> None:
    """Train until the recipe's last step, going on from the newest whole checkpoint.

    Raises:
        ValueError: the data is not what the plan says, or the starting weights have no certificate for this run.
        FloatingPointError: loss or gradient norm went bad again and again; incidents.jsonl names the clips.
        SystemExit: a request to stop, after the work was saved.
    """
    run = Run.model_validate_json((work / "run.json").read_bytes())
    stop = stop_request.StopRequest()
    deepspeed_engine.start(run.training)
    lock = _hold(work)  # noqa: F841  # until this process ends
    data = planned_data(run, work)
    shared = starting_model(run, work)
    ema = Ema(shared, run.training.optimizer.ema_decay)
    is_done = Loop(run, work, data, shared, ema, _device(run.training)).go(stop)
    if is_done:
        export(run, work, data, shared, ema)
    deepspeed_engine.stop(shared)
    if not is_done:
        sys.exit(process_exit.STOPPED)


def planned_data(run: Run, work: Path) -> LatentData:
    """Return what the run is trained on, if it is what the plan in `work` says.

    Raises:
        ValueError: it is not.
    """
    data = LatentData(Path(run.latents), run.recipe.best_fraction)
    data_plan.check_run(data_plan.read(work), run, dist.get_world_size(), data.samples.clips.to_pylist())
    return data


def starting_model(run: Run, work: Path):
    """Return the model with its starting weights and its optimizer, shared out over the ranks.

    Raises:
        ValueError: the starting weights in `work` have no certificate for this run.
    """
    recipe, training = run.recipe, run.training
    model = deepspeed_engine.build(run.model, recipe.frames > 1, recipe, training)
    model.activation_checkpointing = training.activation_checkpointing
    if training.compile:
        model.compile_blocks()
    if group := sequence_parallel.join(data_plan.together(recipe, training)):
        model.share_sequence(group)
    shared = deepspeed_engine.engine(model, recipe, training)
    if run.parent:
        deepspeed_engine.start_from(shared, partial(warm_start.load_start, run, work / START))
    else:
        deepspeed_engine.start_from(shared, partial(initialisation.fill, run.model, model.is_video, training.seed))
    return shared


def export(run: Run, work: Path, data: LatentData, shared, ema: Ema) -> None:
    """Write the EMA weights and what they are to `work`/weights, whole or not at all; one weight at a time."""
    if dist.get_rank() > 0:
        for _ in ema.each():  # the first rank gets each of them from all
            pass
        return
    aside = work / "weights.tmp"
    files.save(aside, ema.each(), run.model, shared.module.is_video, warm_start.outcome(run, data))
    aside.rename(work / "weights")


def _device(training: TrainingSettings) -> torch.device:
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if training.device == "cuda" else torch.device("cpu")


def _hold(work: Path) -> TextIO | None:
    """Hold the lock of a run's folder on the first rank, as long as what is returned lives.

    Raises:
        RuntimeError: ranks of another attempt are still alive.
    """
    if dist.get_rank():
        return None
    lock = (work / "lock").open("w")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise RuntimeError(f"{work} is in use by ranks of another attempt: end them first") from error
    return lock


def main() -> None:
    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if is_first else logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    train(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
