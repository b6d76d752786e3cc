"""Train one recipe: `python -m stiv_model.training.train WORK` on every rank.

WORK holds run.json (what to do), plan.json (with which data), where the run has a parent start/
(`stiv_model.weights.warm_start`). It gets checkpoints/ (to go on from), and at the end weights/ (the EMA weights);
what it is watched by writes its own (`run_files`). Every random draw is a function of the seed and of the sample's
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
from deepspeed import DeepSpeedEngine

from stiv_model import process_exit
from stiv_model.distributed import deepspeed_engine
from stiv_model.distributed.ema import Ema
from stiv_model.latents import data_plan
from stiv_model.latents.dataset import LatentData
from stiv_model.network import sequence_parallel
from stiv_model.settings import RUN_FILE, Run, TrainingSettings
from stiv_model.training import stop_request
from stiv_model.training.loop import Loop
from stiv_model.training.observer import Observe
from stiv_model.weights import durable, files, initialisation, warm_start
from stiv_model.weights.certificate import START


def train(work: Path, observe: Observe) -> None:
    """Train until the recipe's last step, going on from the newest whole checkpoint.

    Args:
        work: the folder of the run, as above.
        observe: makes what watches it.

    Raises:
        ValueError: the data is not what the plan says, or the starting weights have no certificate for this run.
        FloatingPointError: loss or gradient norm went bad again and again; incidents.jsonl names the clips.
        SystemExit: a request to stop, after the work was saved.
    """
    run = Run.model_validate_json((work / RUN_FILE).read_bytes())
    stop = stop_request.StopRequest()
    deepspeed_engine.start(run.training)
    lock = _hold(work)  # noqa: F841  # until this process ends
    data = planned_data(run, work)
    engine = starting_model(run, work)
    ema = Ema(engine, run.training.optimizer.ema_decay)
    is_done = Loop(run, work, data, engine, ema, _device(run.training), observe).go(stop)
    if is_done:
        export(run, work, data, engine, ema)
    deepspeed_engine.stop(engine)
    if not is_done:
        sys.exit(process_exit.STOPPED)


def planned_data(run: Run, work: Path) -> LatentData:
    """Return what the run is trained on, if it is what the plan in `work` says.

    Raises:
        ValueError: it is not.
    """
    data = LatentData(Path(run.latents), run.recipe)
    samples = data.samples
    data_plan.check_run(data_plan.read(work), run, dist.get_world_size(), len(samples), samples.sha256)
    return data


def starting_model(run: Run, work: Path) -> DeepSpeedEngine:
    """Return the model with its starting weights and its optimizer, shared out over the ranks.

    Raises:
        ValueError: the starting weights in `work` have no certificate for this run.
    """
    recipe, training = run.recipe, run.training
    model = deepspeed_engine.build(run.model, recipe.frames > 1, recipe, training)
    model.activation_checkpointing = training.activation_checkpointing
    if training.compile:
        model.compile_blocks()
    if group := sequence_parallel.new_group(data_plan.together(recipe, training)):
        model.share_sequence(group)
    engine = deepspeed_engine.engine(model, recipe, training)
    if run.parent:
        deepspeed_engine.start_from(engine, partial(warm_start.load_start, run, work / START))
    else:
        deepspeed_engine.start_from(engine, partial(initialisation.fill, run.model, model.is_video, training.seed))
    return engine


def export(run: Run, work: Path, data: LatentData, engine: DeepSpeedEngine, ema: Ema) -> None:
    """Write the EMA weights and what they are to `work`/weights, whole or not at all; one weight at a time."""
    if dist.get_rank() > 0:
        for _ in ema.each():  # the first rank gets each of them from all
            pass
        return
    tmp_path = work / "weights.tmp"
    files.save(tmp_path, ema.each(), run.model, engine.module.is_video, warm_start.target(run, data))
    durable.sync_tree(tmp_path)
    tmp_path.rename(work / "weights")
    durable.sync(work)


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
    """Train the run whose folder is on the command line, watched by `Monitor`."""
    # the one place where a room that decides weights imports the one that watches: to hand it to the loop
    from stiv_model.monitoring.monitor import Monitor

    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if is_first else logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    work = Path(sys.argv[1])
    with process_exit.noting_failure(work):
        train(work, Monitor)


if __name__ == "__main__":
    main()
