"""The flow behind the six training stages."""

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

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
    """Train one recipe, from the weights in `init` when given.

    A video model may take its temporal attention from the video model in `temporal_init`, and all else from the
    image model in `init`. The certificate of what was handed on is written next to the new weights. `levels` gets a
    table of losses by noise level, and `shown` a folder with the validation videos and what `tensorboard --logdir`
    shows, both named after `out`; while the training goes on, that folder is a link.

    Args:
        latents: Folder with the shards of latents to train on.
        out: Folder for the EMA weights and their certificate; its name is the name of the run.
        curve: File for the loss of every step (TSV).
        recipe: Section of params.yaml with the recipe, such as train.t2v.
        init: Folder of the weights to start from; without it, training starts from random ones.
        temporal_init: Folder of the video model whose temporal attention is taken, beside the image model in --init.
        levels: Folder for the table of losses by noise level.
        shown: Folder for the validation videos and the files that TensorBoard shows.

    examples:
      stiv train --latents data/latents --out checkpoints/t2v --curve reports/losses/t2v.tsv
                 --init checkpoints/t2i --recipe train.t2v
      stiv train --latents data/latents-512 --out checkpoints/t2v-512 --curve reports/losses/t2v-512.tsv
                 --init checkpoints/t2i-512 --temporal-init checkpoints/t2v --recipe train.t2v
    """
    parents = launch.parents_of(init, temporal_init)
    run = launch.describe_run(latents, parents, out.name, model, recipe, training, monitoring)
    launch.train(run, out, curve, levels / f"{out.name}.tsv", shown / out.name)
    create_markdown_artifact(
        page(out, curve, levels / f"{out.name}.tsv", shown / out.name), key=f"train-{out.name.replace('_', '-')}"
    )
