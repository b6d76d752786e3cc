"""The learning rate of each step: a pure function of the step and the recipe, so that a run that goes on is exact."""

import math

from stiv_model.settings import RateDecay, RecipeSettings


def of_step(step: int, recipe: RecipeSettings) -> float:
    """Return the learning rate of a step: it rises from zero, stays, and falls over the last steps where it decays.

    With the peak h = `learning_rate`, W = `warmup_steps`, K = `steps`, and of the decay N = `steps` and f = `floor`,
    step k, counted from 1, learns at

        h min(1, k / W)            up to step K - N
        h (f + (1 - f) g(p))       after it, with p = (k - (K - N)) / N and g(p) = 1 - p           (linear)
                                                                        or (1 + cos(pi p)) / 2     (cosine)

    so that step W and step K - N learn at the peak, and the last one, K, at f h exactly: with a floor of 0 it changes
    no weight any more, and is one more step of the moving average. A constant rate has no such steps (N = 0).

    Args:
        step: from 1 to `recipe.steps`.
        recipe: whose warm-up ends before its decay begins (`RecipeSettings` refuses others).
    """
    decay = recipe.decay
    falling = step - recipe.steps + decay.steps if isinstance(decay, RateDecay) else 0
    if not isinstance(decay, RateDecay) or falling <= 0:
        return recipe.learning_rate * min(1, step / recipe.warmup_steps)
    share = falling / decay.steps
    left = 1 - share if decay.kind == "linear" else (1 + math.cos(math.pi * share)) / 2
    return recipe.learning_rate * (decay.floor + (1 - decay.floor) * left)
