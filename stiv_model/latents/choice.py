"""Which clips a recipe trains on: one rule for the plan at the door, the loader of every rank, and the record of a run.

Without torch: nobody waits for it at the door.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from stiv_model.settings import RecipeSettings


class Choice(NamedTuple):
    """Rows of the table of latents, with the columns that were given."""

    long_enough: Any
    """Usable clips that have as many latent frames as the recipe needs, in the order of the table."""
    samples: Any
    """The best of them, which are trained on: sample number n (`order.Order`) is row n."""


def choose(usable: Any, frames: Mapping[str, int], recipe: RecipeSettings) -> Choice:
    """Choose the clips that a recipe trains on.

    A usable clip is long enough if it has `recipe.span` latent frames or more. Of those, the share
    `recipe.best_fraction`, rounded up to whole clips, are the samples: the highest aesthetic scores first, and of equal
    scores the first names. Samples are numbered in the order of their names.

    Args:
        usable: rows of the table of latents with status ok, each with a clip, a shard and an aesthetic score.
        frames: latent frames of each clip of a shard, by the shard's name.
    """
    shards = pa.array([name for name, count in frames.items() if count >= recipe.span], pa.string())
    long_enough = usable.filter(pc.is_in(usable["shard"], shards))
    best = long_enough.sort_by([("aesthetic", "descending"), ("clip", "ascending")])
    count = math.ceil(recipe.best_fraction * len(best))
    return Choice(long_enough, best.slice(0, count).sort_by("clip"))
