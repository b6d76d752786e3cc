"""What a recipe will do with its data, worked out before any process is started."""

import os

from stiv_model.settings import ModelSettings, RecipeSettings, TrainingSettings


def micro_batch(recipe: RecipeSettings, training: TrainingSettings) -> int:
    """Return the samples of one micro-batch on one rank.

    Raises:
        ValueError: the batch cannot be shared out evenly.
    """
    parts = training.ranks * training.accumulation
    if recipe.batch % parts:
        raise ValueError(
            f"batch {recipe.batch} cannot be shared by training.ranks {training.ranks} x training.accumulation "
            f"{training.accumulation}: make it a multiple of {parts} in params.yaml"
        )
    return recipe.batch // parts


def check(name: str, recipe: RecipeSettings, model: ModelSettings, training: TrainingSettings) -> None:
    """Refuse a recipe that cannot run on this machine or this model.

    Raises:
        ValueError: one line with the value, the place and the remedy.
    """
    micro_batch(recipe, training)
    if recipe.frames > 1 and recipe.frames % model.temporal_patch:
        raise ValueError(
            f"train.{name}.frames is {recipe.frames}, but model.temporal_patch is {model.temporal_patch}: "
            f"use a multiple of {model.temporal_patch} in params.yaml"
        )
    cores = len(os.sched_getaffinity(0))
    if training.device == "cpu" and training.ranks > cores:
        raise ValueError(
            f"training.ranks is {training.ranks}, but this process may use {cores} core(s): set training.ranks to "
            f"{cores} in params.yaml, or give it more cores"
        )
