"""The flow behind the six training stages."""

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from stiv_model.card import Role
from stiv_model.settings import ModelSettings, RecipeSettings, TrainingSettings
from tasks import training as ranks


@flow(flow_run_name="train {out.name}")
def train(
    latents: Path,
    out: Path,
    curve: Path,
    model: ModelSettings,
    recipe: RecipeSettings,
    training: TrainingSettings,
    init: Path | None = None,
    temporal_init: Path | None = None,
) -> None:
    """Train one recipe, from the weights in `init` when given.

    A video model may take its temporal attention from the video model in `temporal_init`, and all else from the
    image model in `init`. The certificate of what was handed on is written next to the new weights.

    examples:
      stiv train --latents data/latents --out checkpoints/t2v --curve reports/losses/t2v.tsv
                 --init checkpoints/t2i --recipe train.t2v
      stiv train --latents data/latents-512 --out checkpoints/t2v-512 --curve reports/losses/t2v-512.tsv
                 --init checkpoints/t2i-512 --temporal-init checkpoints/t2v --recipe train.t2v
    """
    named: dict[Role, Path | None] = {"weights": init, "temporal": temporal_init}
    parents = {role: folder for role, folder in named.items() if folder}
    run = ranks.describe_run(latents, parents, out.name, model, recipe, training)
    ranks.train(run, out, curve)
    last = curve.read_text().splitlines()[-1].split("\t")
    create_markdown_artifact(
        f"`{out}`: {recipe.steps} steps of {recipe.batch} samples, last loss {last[1]}, {last[4]} samples/s. "
        f"Losses: `{curve}`.",
        key=f"train-{out.name.replace('_', '-')}",
    )
