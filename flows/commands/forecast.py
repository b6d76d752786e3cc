"""What one recipe will do with its data and what it costs: the figures behind `stiv plan`."""

import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from flows.commands.clip_size import latent_sides
from flows.params import Params
from stiv_model.latents import data_plan
from stiv_model.latents.data_plan import Plan
from stiv_model.monitoring import costs
from stiv_model.monitoring import memory_estimate as memory
from stiv_model.monitoring.costs import SampleCost, SampleShape
from stiv_model.monitoring.memory_estimate import GpuBytes
from stiv_model.settings import ModelSettings, RecipeSettings, TrainingSettings


class Prices(NamedTuple):
    """What turns FLOPs into hours and money; None is unknown."""

    tflops: float | None
    """TFLOP/s (1e12 executed FLOPs per second) that one GPU sustains."""
    gpu_rate: float | None
    """Price of one GPU for one hour, in any currency."""
    inference_tflops: float | None = None
    """TFLOP/s that one device sustains in encoding and sampling; None is as a GPU in training."""


class Forecast(NamedTuple):
    """The forecast of one recipe. FLOPs are those executed, of matrix products and attention; None is unknown."""

    recipe: RecipeSettings
    data: Plan | None
    refused: str | None
    """Why training would not start on these latents."""
    micro_batch: int
    tokens: int
    """Tokens of one sample."""
    step_flops: int
    """FLOPs of one optimizer step, on all ranks together."""
    memory: dict[str, int]
    """Bytes on one rank, by what they are for."""
    gpu_hours: float | None
    price: float | None

    @property
    def samples_drawn(self) -> int:
        return self.recipe.steps * self.recipe.batch

    @property
    def flops(self) -> int:
        """FLOPs of all steps, on all ranks together."""
        return self.recipe.steps * self.step_flops


def forecast(
    name: str, recipe: RecipeSettings, latents: Path | None, params: Params, prices: Prices, downsampling: int
) -> Forecast:
    """Return the forecast of one recipe: of its costs always, of its data where there are latents.

    Args:
        name: of the recipe.
        latents: folder with the latents to train on; None leaves what depends on them unknown.
        downsampling: pixels that the VAE turns into one latent, on each side.

    Raises:
        FileNotFoundError: the folder has no table of latents.
    """
    data, refused = count(name, recipe, latents, params)
    training = params.training
    share = data_plan.micro_batch(recipe, training)
    shape = SampleShape(recipe.frames, *sides(data, params, downsampling), params.text.tokens)
    sample, fixed = cost(params.model, training, recipe, shape)
    if training.activation_checkpointing:
        flops, activation_bytes = sample.checkpointed_training_flops, sample.checkpointed_activation_bytes
    else:
        flops, activation_bytes = sample.training_flops, sample.activation_bytes
    step_flops = recipe.batch * flops
    gpu_hours = price = None
    if prices.tflops is not None:
        gpu_hours = recipe.steps * step_flops / (prices.tflops * 1e12) / 3600
        price = None if prices.gpu_rate is None else gpu_hours * prices.gpu_rate
    needed = {
        **fixed._asdict(),
        "activations": math.ceil(share * activation_bytes / data_plan.together(recipe, training)),
    }
    return Forecast(recipe, data, refused, share, sample.tokens, step_flops, needed, gpu_hours, price)


@cache
def cost(
    model: ModelSettings, training: TrainingSettings, recipe: RecipeSettings, shape: SampleShape
) -> tuple[SampleCost, GpuBytes]:
    """Return what a sample costs, and what a rank keeps besides; the same for many recipes."""
    fixed = memory.per_gpu(costs.build_on_meta(model, shape.frames > 1), training, training.ranks)
    return costs.recipe_cost(model, training, recipe, shape), fixed


def count(name: str, recipe: RecipeSettings, latents: Path | None, params: Params) -> tuple[Plan | None, str | None]:
    """Return the plan that training would make, and why it would be refused.

    Raises:
        FileNotFoundError: there is no table of latents.
    """
    if latents is None:
        return None, None
    planned = None
    try:
        planned = data_plan.make(latents, name, params.model, recipe, params.training)
        data_plan.check_buckets(planned)
    except ValueError as error:
        return planned, str(error)
    return planned, None


def sides(data: Plan | None, params: Params, downsampling: int) -> tuple[int, int]:
    """Return rows and columns of the latents: those that there are, else those that the settings will make."""
    if data:
        return data.buckets[0].rows, data.buckets[0].columns
    return latent_sides(params, downsampling)


def figures(one: Forecast) -> dict[str, Any]:
    """Return the forecast as JSON has it; its `data` has the fields of a run's plan.json."""
    derived = ("steps_per_epoch", "epochs", "never_drawn")
    data = one.data
    return {
        "data": data.model_dump(mode="json") | {key: getattr(data, key) for key in derived} if data else None,
        "refused": one.refused,
        **{key: getattr(one.recipe, key) for key in ("frames", "steps", "batch")},
        "micro_batch": one.micro_batch,
        "samples_drawn": one.samples_drawn,
        "tokens": one.tokens,
        "step_flops": one.step_flops,
        "flops": one.flops,
        "memory": one.memory | {"sum": sum(one.memory.values())},
        "gpu_hours": one.gpu_hours,
        "price": one.price,
    }
