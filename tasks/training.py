"""The border between orchestration and ranks: start the training processes and follow their log."""

import logging
import os
import shutil
import sys
from pathlib import Path

from prefect import task

from stiv_model import card, plan
from stiv_model.settings import ModelSettings, RecipeSettings, Run, TrainingSettings
from tasks import processes, resume

log = logging.getLogger(__name__)


def environment(training: TrainingSettings) -> dict[str, str]:
    """Return the environment that every rank runs in."""
    cores = len(os.sched_getaffinity(0))
    wanted = {
        "OMP_NUM_THREADS": str(max(1, cores // training.ranks)),
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",  # DeepSpeed's checkpoints are pickles
        "PYTHONWARNINGS": "ignore::FutureWarning",  # torch 2.13 prints one per collective
        "PYTHONUNBUFFERED": "1",
        "TORCH_EXTENSIONS_DIR": str(Path(sys.prefix) / "torch_extensions"),
    }
    if training.device == "cpu":
        wanted |= {"DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo"}
    return os.environ | wanted


def describe_run(
    latents: Path,
    parent: Path | None,
    name: str,
    model: ModelSettings,
    recipe: RecipeSettings,
    training: TrainingSettings,
) -> Run:
    """Say what a run is, after checking at the door that it can be done.

    Raises:
        FileNotFoundError: latents or parent are missing.
        ValueError: recipe, model, parent or machine do not fit together.
    """
    plan.check(name, recipe, model, training)
    table = latents / "latents.parquet"
    if not table.exists():
        raise FileNotFoundError(f"{table} does not exist: run stage latents first")
    if parent:
        card.check_parent(parent, model, is_video=recipe.frames > 1)
    return Run(
        recipe_name=name,
        latents=str(latents),
        latents_sha256=resume.sha256_file(table),
        parent=parent and str(parent),
        parent_sha256=parent and resume.sha256_file(parent / card.WEIGHTS),
        model=model,
        recipe=recipe,
        training=training,
    )


@task(task_run_name="train {run.recipe_name}", retries=2, retry_delay_seconds=5)
def run_ranks(run: Run, out: Path) -> Path:
    """Run all ranks to the end of the recipe, from where an earlier attempt stopped; return their folder."""
    work = resume.open_work(out, run.model_dump())
    if not (work / "weights").exists():
        ranks = str(run.training.ranks)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", ranks]
        processes.run([*launcher, "-m", "stiv_model.train", str(work)], environment(run.training), _tell)
    return work


def train(run: Run, out: Path, curve: Path) -> None:
    """Train one recipe; the EMA weights appear as `out`, the losses per step as the table `curve`."""
    work = run_ranks(run, out)
    weights = work / "weights"
    shutil.copy(work / "run.json", weights / "run.json")
    curve.parent.mkdir(parents=True, exist_ok=True)
    with resume.whole(curve) as aside:
        shutil.copy(work / "losses.tsv", aside)
    trained, _ = card.read(weights)
    assert trained == run.model, f"{weights} is of another model than run.json says"
    resume.finish(weights, out)
    resume.discard_work(out)


def _tell(line: str) -> None:
    """Pass on what the ranks print, without the notes of libraries that nobody can act on."""
    noise = ("gcc ", "Setting ds_accelerator", "[Gloo]")
    if line.strip() and not line.startswith(noise):
        log.info(line)
