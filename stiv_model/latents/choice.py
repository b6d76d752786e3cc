"""Which clips a recipe trains on: one rule for the plan at the door, the loader of every rank, and the record of a run.

Without torch: nobody waits for it at the door.
"""

import math
from typing import NamedTuple

import numpy as np

from stiv_model.settings import RecipeSettings


class Choice(NamedTuple):
    """Numbers of clips, in the order of the clips' names."""

    long_enough: np.ndarray
    """Those that have as many latent frames as the recipe needs."""
    samples: np.ndarray
    """The best of them, which are trained on: sample number n (`order.Order`) is clip number `samples[n]`."""


def choose(by_name: np.ndarray, aesthetic: np.ndarray, frames: np.ndarray, recipe: RecipeSettings) -> Choice:
    """Choose the clips that a recipe trains on.

    A clip is long enough if it has `recipe.span` latent frames or more. Of those, the share `recipe.best_fraction`,
    rounded up to whole clips, are the samples: the highest aesthetic scores first, and of equal scores the first names.
    Samples are numbered in the order of their names.

    Args:
        by_name: numbers of the usable clips, in the order of their names: (usable,).
        aesthetic: score of each clip, by its number.
        frames: latent frames of each clip, by its number.
    """
    long_enough = by_name[frames[by_name] >= recipe.span]
    count = math.ceil(recipe.best_fraction * len(long_enough))
    best = np.argsort(-aesthetic[long_enough], kind="stable")[:count]
    return Choice(long_enough, long_enough[np.sort(best)])
