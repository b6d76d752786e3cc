"""Start a training: describe the run, make its starting weights, start the ranks and follow their log."""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Formatter

from prefect import task

from stiv_model import fork_server
from stiv_model.distributed import local_ranks
from stiv_model.encoders import provenance
from stiv_model.errors.failures import PermanentError, StopRequestedError, is_worth_retrying
from stiv_model.errors.redaction import redacted
from stiv_model.latents import data_plan, training_set
from stiv_model.latents.folder import TABLE
from stiv_model.process_exit import failure, forget_failures, mark_stopped, stopped_at
from stiv_model.settings import RUN_FILE, ModelSettings, MonitoringSettings, RecipeSettings, Run, TrainingSettings
from stiv_model.training.run_files import INCIDENTS, LEDGER, LOSSES, NOISE_LEVEL_LOSSES, SHOWN
from stiv_model.weights import metadata
from stiv_model.weights.certificate import CERTIFICATE, START
from stiv_model.weights.metadata import Role
from tasks.operations import processes
from tasks.operations.task_runs import call
from tasks.storage import atomic
from tasks.training import run_folder

log = logging.getLogger(__name__)

_STATE_BYTES = 16
"""Bytes of a checkpoint per parameter, at most: master weights, two moments and EMA in float32."""


def environment(training: TrainingSettings) -> dict[str, str]:
    """Return the environment that every rank runs in."""
    cores = len(os.sched_getaffinity(0))
    wanted = {
        "OMP_NUM_THREADS": str(max(1, cores // training.ranks_per_node)),
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",  # DeepSpeed's checkpoints are pickles
        "PYTHONWARNINGS": "ignore::FutureWarning",  # torch 2.13 prints one per collective
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # nobody watches them
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "270",  # seconds that torchrun gives ranks to save, asked to stop
        "TORCH_EXTENSIONS_DIR": str(Path(sys.prefix) / "torch_extensions"),
    }
    if training.device == "cpu":
        wanted["DS_ACCELERATOR"] = "cpu"
    if training.nodes == 1:  # nobody else is to reach what the ranks listen on
        wanted |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return os.environ | wanted


def local_environment(training: TrainingSettings) -> dict[str, str]:
    """Return the environment of what belongs to a run and no cluster's launcher starts, as local ranks have it."""
    return local_ranks.inherited(environment(training))


def launch_command(training: TrainingSettings, work: Path) -> list[str]:
    """Fill in `training.launcher`: {python}, {nodes}, {ranks_per_node} and {work}, the folder of the run.

    Raises:
        ValueError: it names something else in braces, or not what is needed.
    """
    fields = {
        "python": sys.executable,
        "nodes": str(training.nodes),
        "ranks_per_node": str(training.ranks_per_node),
        "work": str(work),
    }
    found = {name for _, name, _, _ in Formatter().parse(training.launcher) if name is not None}
    needed = {"work", "nodes"} if training.nodes > 1 else {"work"}
    for names, problem in ((found - fields.keys(), "unknown"), (needed - found, "missing")):
        if names:
            raise ValueError(
                f"{{{min(names)}}} is {problem} in training.launcher ({training.launcher!r}, training.nodes "
                f"{training.nodes}): docs/launching.md has one for each kind of cluster"
            )
    return [word.format_map(fields) for word in shlex.split(training.launcher)]


def parents_of(weights: Path | None, temporal: Path | None) -> dict[Role, Path]:
    """Return the folders of weights that a run starts from, by their role; empty where it starts from random weights.

    Args:
        weights: of an earlier training.
        temporal: of a video model, from which temporal attention alone starts.
    """
    named: dict[Role, Path | None] = {"weights": weights, "temporal": temporal}
    return {role: folder for role, folder in named.items() if folder}


def describe_run(
    latents: Path,
    parents: Mapping[Role, Path],
    name: str,
    model: ModelSettings,
    recipe: RecipeSettings,
    training: TrainingSettings,
    monitoring: MonitoringSettings,
) -> Run:
    """Return the description of a run, after checking that its settings, latents and parents fit together.

    Args:
        latents: folder with the latents to train on.
        parents: folders of the weights that it starts from (`parents_of`).
        name: of the run, which names its recipe.

    Raises:
        FileNotFoundError: latents or a parent are missing.
        ValueError: recipe, model, parents, latents or machine do not fit together.
    """
    data_plan.check(name, recipe, model, training)
    launch_command(training, work=latents)  # refuses a launcher that cannot be filled in; no run has a folder yet
    table = latents / TABLE
    if not table.exists():
        raise FileNotFoundError(f"{table} does not exist: run stage latents first")
    made_by = provenance.hashes(latents)
    if parents:
        metadata.check_parents(parents, model, is_video=recipe.frames > 1)
        metadata.check_encoders(parents, latents, made_by)
    hashes = {role: atomic.sha256_file(folder / metadata.WEIGHTS) for role, folder in parents.items()}
    run = Run(
        recipe_name=name,
        latents=str(latents),
        latents_sha256=atomic.sha256_file(table),
        encoders=made_by,
        parent=str(parents["weights"]) if "weights" in parents else None,
        parent_sha256=hashes.get("weights"),
        temporal_parent=str(parents["temporal"]) if "temporal" in parents else None,
        temporal_parent_sha256=hashes.get("temporal"),
        model=model,
        recipe=recipe,
        training=training,
        monitoring=monitoring,
    )
    if run.validates:
        provenance.read(latents, batch=1)  # refuses latents that do not say where theirs are
    return run


def make_start(run: Run, work: Path) -> None:
    """Make the starting weights with their certificate, unless an earlier attempt did.

    In a process of its own: the memory that large weights take is given back.

    Raises:
        RuntimeError: the parents' weights cannot be handed on; the message says why.
    """
    if not (work / START).exists():
        command = fork_server.command("ranks", "stiv_model.weights.warm_start", str(work))
        _run(command, local_environment(run.training), work)


def make_prompts(run: Run, work: Path) -> None:
    """Make the text features of the validation prompts, unless an earlier attempt did; in a process of its own too.

    They belong to what watches a training, which nothing imports that decides one: hence by its name.

    Raises:
        RuntimeError: the text encoder is missing or another one, or a prompt is too long; the message says which.
    """
    command = fork_server.command("ranks", "stiv_model.monitoring.prompt_features", str(work))
    _run(command, local_environment(run.training), work)


def _run(command: list[str], told: dict[str, str], work: Path) -> None:
    """Run a program that notes its failures in the folder of a run.

    Raises:
        PermanentError: it failed, and would fail again; the message is the error that it noted first.
        RuntimeError: it failed otherwise; the message is that error, or else its last lines.
    """
    forget_failures(work)
    try:
        processes.run(command, told, _tell)
    except RuntimeError:
        if (noted := failure(work)) is None:
            raise
        raise (RuntimeError if noted.may_pass else PermanentError)(noted.line) from None


@task(
    task_run_name="train {run.recipe_name}",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_worth_retrying,
)
@redacted
def run_ranks(run: Run, work: Path) -> None:
    """Run all ranks to the end of the recipe, from where an earlier attempt stopped.

    Raises:
        PermanentError: they failed, and would fail again; the message is what the first of them that did so said.
        RuntimeError: they failed otherwise, and were tried again in vain.
        StopRequestedError: they were asked to stop (SIGTERM), and saved their work.
    """
    if (work / "weights").exists():
        return
    mark_stopped(work, None)
    try:
        _run(launch_command(run.training, work), environment(run.training), work)
    except RuntimeError:
        step = stopped_at(work)
        if step is None:
            raise
        raise StopRequestedError(f"asked to stop: saved after step {step}; the same command goes on there") from None


def make_plan(run: Run) -> data_plan.Plan:
    """Return the plan of a run on its data, after checking that this machine has the devices for its ranks.

    Raises:
        FileNotFoundError, ValueError: there is no plan for this run and this data, or no device for its ranks.
    """
    planned = data_plan.make(Path(run.latents), run.recipe_name, run.model, run.recipe, run.training)
    data_plan.check_buckets(planned)
    _check_device(run.training)
    return planned


def check_start(run: Run, out: Path) -> None:
    """Check that a run could start: its plan, the devices for its ranks, and the disk for its checkpoints.

    The ranks look at the disk themselves, when they start and before each checkpoint; this asks before anything is
    deleted for them.

    Args:
        out: folder in which its weights will be.

    Raises:
        FileNotFoundError, ValueError: as `make_plan`.
        OSError: its checkpoints will not fit on the disk.
    """
    import torch

    from stiv_model.network.transformer import StivTransformer

    make_plan(run)
    with torch.device("meta"):
        model = StivTransformer(run.model, run.recipe.frames > 1, is_filled=False)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    needed = parameters * _STATE_BYTES * (run.training.keep_checkpoints + 1)  # one more while it is written
    place = next(folder for folder in out.absolute().parents if folder.exists())
    if (free := shutil.disk_usage(place).free) < needed:
        raise OSError(
            f"{place} has {free / 1e9:.1f} GB free, and {run.training.keep_checkpoints + 1} checkpoints of "
            f"{parameters:,} parameters take {needed / 1e9:.1f} GB: free some space, or lower training.keep_checkpoints"
        )


def _check_device(training: TrainingSettings) -> None:
    if training.device != "cuda" or training.nodes > 1:  # the ranks of several nodes start elsewhere
        return
    import torch

    found = torch.cuda.device_count()
    if found < training.ranks:
        raise ValueError(
            f"training.device is cuda and training.ranks {training.ranks}, but this machine has {found} GPUs that "
            "PyTorch can use: set training.ranks to what is there, or training.device: cpu in params.yaml"
        )


def train(run: Run, out: Path, curve: Path, levels: Path, shown: Path) -> None:
    """Train one recipe to its end, or go on where an earlier attempt was stopped.

    Args:
        out: folder for the EMA weights and what describes them; it appears when the run is whole.
        curve: file for the losses per step (TSV).
        levels: file for the losses per step and noise level (TSV).
        shown: folder for TensorBoard's files and the validation videos; while the run goes on, a link to them.

    Raises:
        FileNotFoundError, ValueError, OSError: as `make_plan` and `run_folder.open_run`; nothing is started then.
    """
    planned = make_plan(run)
    work = run_folder.open_run(run, out)
    with atomic.atomic_write(work / data_plan.FILE) as tmp_path:
        tmp_path.write_text(planned.model_dump_json(indent=2))
    if run.parents:
        make_start(run, work)
    if run.validates:
        make_prompts(run, work)
    weights = work / "weights"
    if not weights.exists():
        _link(shown, work / SHOWN)
    call(run_ranks, run, work)
    training_set.write(run, planned, weights)
    for record in (RUN_FILE, data_plan.FILE, NOISE_LEVEL_LOSSES, LEDGER, INCIDENTS):
        shutil.copy(work / record, weights / record)
    if run.parents:
        shutil.copy(work / START / CERTIFICATE, weights / CERTIFICATE)
    for record, table in ((LOSSES, curve), (NOISE_LEVEL_LOSSES, levels)):
        table.parent.mkdir(parents=True, exist_ok=True)
        with atomic.atomic_write(table) as tmp_path:
            shutil.copy(work / record, tmp_path)
    _move_in_place(work / SHOWN, shown)
    assert metadata.read(weights).model == run.model, f"{weights} is of another model than run.json says"
    atomic.finish(weights, out)
    atomic.discard_workdir(out)


def _link(shown: Path, inside: Path) -> None:
    """Let `shown` lead to what is inside the work, in the place of what an earlier run left there."""
    inside.mkdir(exist_ok=True)
    _remove(shown)
    shown.parent.mkdir(parents=True, exist_ok=True)
    shown.symlink_to(os.path.relpath(inside, shown.parent), target_is_directory=True)


def _move_in_place(inside: Path, shown: Path) -> None:
    """Move what is inside the work to `shown`, unless an earlier attempt did."""
    if inside.exists():
        _remove(shown)
        shutil.move(inside, shown)


def _remove(shown: Path) -> None:
    if shown.is_symlink():
        shown.unlink()
    elif shown.exists():
        shutil.rmtree(shown)


def _tell(line: str) -> None:
    """Pass on what the ranks print, without the notes of libraries that nobody can act on."""
    noise = ("gcc ", "Setting ds_accelerator", "[Gloo]")
    if line.strip() and not line.startswith(noise):
        log.info(line)
