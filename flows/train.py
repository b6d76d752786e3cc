"""The flow behind the six training stages."""

from pathlib import Path

from prefect import flow

from flows.running.progress import show
from flows.running.training_page import page
from stiv_model.settings import ModelSettings, MonitoringSettings, RecipeSettings, TrainingSettings
from tasks.training import launch


@flow(flow_run_name="train {out.name}")
def train(
    latents: Path,
    out: Path,
    curve: Path,
    model: ModelSettings,
    recipe: RecipeSettings,
    training: TrainingSettings,
    monitoring: MonitoringSettings,
    init: Path | None = None,
    temporal_init: Path | None = None,
    levels: Path = Path("reports/noise_levels"),
    shown: Path = Path("reports/training"),
) -> None:
    """Train one recipe, from random weights or from those of an earlier training.

    The weights in --out are the moving average (EMA) of those trained. Beside them stands a certificate of where every
    parameter started from.

    Args:
        latents: Folder with the latents to train on and their table.
        out: Folder for the EMA weights and their certificate; its name is the name of the run.
        curve: File for the loss of every step (TSV).
        recipe: Section of params.yaml with the recipe, such as train.t2v.
        init: Folder of the weights to start from, of an earlier training; without it, they are random.
        temporal_init: Folder of a video model to start temporal attention from, when --init is an image model.
        levels: Folder for the table of losses by noise level, named after the run.
        shown: Folder for the validation videos and the files that TensorBoard shows, in a folder named after the run;
            while the training goes on, that folder is a link.

    examples:
      stiv train --latents data/latents --out checkpoints/t2v --curve reports/losses/t2v.tsv
                 --init checkpoints/t2i --recipe train.t2v
      stiv train --latents data/latents-512 --out checkpoints/t2v-512 --curve reports/losses/t2v-512.tsv
                 --init checkpoints/t2i-512 --temporal-init checkpoints/t2v --recipe train.t2v
    """
    parents = launch.parents_of(init, temporal_init)
    run = launch.describe_run(latents, parents, out.name, model, recipe, training, monitoring)
    launch.train(run, out, curve, levels / f"{out.name}.tsv", shown / out.name)
    told = page(out, curve, levels / f"{out.name}.tsv", shown / out.name)
    show("markdown", f"train-{out.name.replace('_', '-')}", markdown=told)
