"""`stiv plan`: what the recipes will do with the data and what they cost, before anything is started."""

import json as jsonlib
import sys
from pathlib import Path

from tqdm import tqdm

from flows.commands import inference
from flows.commands.clip_size import clip_bytes
from flows.commands.forecast import Forecast, Prices, figures, forecast
from flows.commands.inference import Work
from flows.params import Params, load_params, section
from stiv_model.monitoring import memory_estimate
from stiv_model.settings import RecipeSettings

RECIPES_IN_A_TABLE = 6


def plan(
    *,
    params: Path = Path("params.yaml"),
    recipe: str | None = None,
    latents: Path | None = None,
    tflops: float | None = None,
    gpu_rate: float | None = None,
    inference_tflops: float | None = None,
    downsampling: int = 8,
    json: bool = False,
) -> None:
    """Say what each recipe will do with the data and what it costs, without running anything.

    Without --recipe, what encoding and sampling cost on the devices that the params file names is told, too.
    With --latents every clip is counted as training will count it: used, or dropped and why; what training would
    refuse is an error here too. Without it, what depends on data is unknown.

    Args:
        params: Params file to plan for.
        recipe: Only this recipe, such as train.t2v; without it, all of the params file.
        latents: Folder with the table of latents to train on.
        tflops: TFLOP/s (1e12 executed FLOPs per second) that one GPU sustains; without it, GPU-hours are unknown.
        gpu_rate: Price of one GPU for one hour, in any currency; needs --tflops too.
        inference_tflops: TFLOP/s that one device sustains in encoding and sampling; without it, as a GPU in --tflops.
        downsampling: Pixels that the VAE turns into one latent, on each side.
        json: Print JSON instead of text.

    examples:
      stiv plan --latents data/latents
      stiv plan --params infra/params/m-512.yaml --recipe train.t2v --tflops 400 --gpu-rate 2.5
      stiv plan --latents data/latents --json
    """
    prices = Prices(tflops, gpu_rate, inference_tflops)
    loaded = load_params(params)
    check(prices, downsampling, loaded)
    bar = tqdm(chosen(loaded, recipe).items(), desc="counting", file=sys.stderr, leave=False)
    forecasts = {name: forecast(name, own, latents, loaded, prices, downsampling) for name, own in bar}
    size = clip_bytes(loaded, downsampling)
    data = next((one.data for one in forecasts.values() if one.data), None)
    works = [] if recipe else inference.works(loaded, downsampling, data.clips if data else None)
    if json:
        head = {"params_file": str(params), **prices._asdict(), "clip_bytes_estimated": size}
        head |= inference.figures(works, prices)
        print(jsonlib.dumps(head | {"recipes": {name: figures(one) for name, one in forecasts.items()}}, indent=2))
    else:
        above = [f"{params}, {latents or 'without --latents'}", *data_lines(forecasts, loaded, downsampling, size)]
        print("\n".join([*above, *tables(forecasts, prices, loaded), *work_lines(works, prices)]))
        print("\n".join(["", *notes(prices, loaded)]))
    if refused := dict.fromkeys(one.refused for one in forecasts.values() if one.refused):
        raise ValueError(f"training would not start: {'; '.join(refused)}")


def check(prices: Prices, downsampling: int, params: Params) -> None:
    """Refuse what cannot be counted.

    Raises:
        ValueError: the option, its value and the remedy.
    """
    if prices.tflops is not None and prices.tflops <= 0:
        raise ValueError(f"--tflops is {prices.tflops:g}: give what one GPU sustains, above 0")
    if prices.inference_tflops is not None and prices.inference_tflops <= 0:
        raise ValueError(f"--inference-tflops is {prices.inference_tflops:g}: give what one device sustains, above 0")
    if prices.gpu_rate is not None and prices.gpu_rate < 0:
        raise ValueError(f"--gpu-rate is {prices.gpu_rate:g}: give the price of one GPU for one hour, 0 or more")
    if prices.gpu_rate is not None and prices.tflops is None:
        raise ValueError(f"--gpu-rate is {prices.gpu_rate:g}, but how many GPU-hours is unknown: give --tflops too")
    sides = params.latents.height, params.latents.width
    if downsampling < 1 or any(side % downsampling for side in sides):
        raise ValueError(
            f"--downsampling is {downsampling}, which does not divide latents.height {sides[0]} and latents.width "
            f"{sides[1]}: give the pixels per latent of vae.source"
        )


def chosen(params: Params, name: str | None) -> dict[str, RecipeSettings]:
    """Return all recipes, or the one of a section such as `train.t2v`.

    Raises:
        ValueError: there is no such recipe.
    """
    if name is None:
        return params.train
    found = section(params, name)
    if not isinstance(found, RecipeSettings):
        raise ValueError(f"--recipe is {name}, which is no recipe: take one of train.{', train.'.join(params.train)}")
    return {name.removeprefix("train."): found}


def _categories(forecasts: dict[str, Forecast]) -> list[str]:
    """Return the categories by which any of the recipes is balanced."""
    return sorted({name for one in forecasts.values() if one.data for name in one.data.categories})


def _draws(one: Forecast, category: str) -> str:
    """Return how often a recipe that is balanced draws each sample of a category."""
    own = one.data.categories.get(category) if one.data else None
    return number(one.samples_drawn * own.share / own.samples) if own else "-"


def data_lines(forecasts: dict[str, Forecast], params: Params, downsampling: int, size: int) -> list[str]:
    """Say what there is to train on: counted, or estimated from shapes."""
    data = next((one.data for one in forecasts.values() if one.data), None)
    if data is None:
        own, missing = params.latents, "refused" if any(one.refused for one in forecasts.values()) else "unknown"
        shape = f"{own.height} x {own.width} pixels x {own.frames} frames"
        return [f"clips: {missing}; one of {shape} will take {size / 1e6:,.3f} MB on disk (estimated from shapes)"]
    return [
        f"clips: {data.clips} = {data.ok} ok + {data.rejected} rejected + {data.failed} failed; "
        f"{data.folder_bytes / 1e6:,.1f} MB on disk (all files of the folder)",
        *(
            f"bucket {bucket.rows * downsampling} x {bucket.columns * downsampling} pixels x {bucket.frames} frames: "
            f"{bucket.clips} ok clips in {bucket.shards} shards, {bucket.shard_bytes / 1e6:,.1f} MB on disk"
            for bucket in data.buckets
        ),
    ]


def tables(forecasts: dict[str, Forecast], prices: Prices, params: Params) -> list[str]:
    """Return the forecasts side by side, a few at a time."""
    lines, names = [], list(forecasts)
    for start in range(0, len(names), RECIPES_IN_A_TABLE):
        own = names[start : start + RECIPES_IN_A_TABLE]
        cells = {name: column(forecasts[name], forecasts, prices, params) for name in own}
        lines += ["", f"{'':36}" + "".join(f"{name:>14}" for name in own)]
        lines += [f"{label:36}" + "".join(f"{cells[name][label]:>14}" for name in own) for label in cells[own[0]]]
    return lines


def column(one: Forecast, forecasts: dict[str, Forecast], prices: Prices, params: Params) -> dict[str, str]:
    """Return what is said of one recipe, by label."""
    data, missing = one.data, "refused" if one.refused else "unknown"
    reasons = dict.fromkeys(reason for other in forecasts.values() if other.data for reason in other.data.dropped)
    found = {
        "latent frames of a sample": number(one.recipe.frames),
        "samples: clips used": number(data.samples) if data else missing,
        **{f"  dropped, {reason}": number(data.dropped.get(reason, 0)) if data else missing for reason in reasons},
        "steps": number(one.recipe.steps),
        "samples in a step, on all ranks": number(one.recipe.batch),
        "  at once on one rank": number(one.micro_batch),
        "samples drawn": number(one.samples_drawn),
        "steps in an epoch": number(data.steps_per_epoch) if data else missing,
        "epochs": number(data.epochs) if data else missing,
        "samples never drawn": number(data.never_drawn) if data else missing,
        **{f"  draws of each sample, {name}": _draws(one, name) for name in _categories(forecasts)},
        "tokens of a sample": number(one.tokens),
        "TFLOP in a step, on all ranks": number(one.step_flops / 1e12),
        "hours at 1 PFLOP/s in all": number(one.flops / 1e15 / 3600),
        **{f"GB on one rank, {part}": number(size / 1e9) for part, size in one.memory.items()},
        "GB on one rank, sum": number(sum(one.memory.values()) / 1e9),
    }
    if one.gpu_hours is not None:
        found[f"GPU-hours at {prices.tflops:g} TFLOP/s"] = number(one.gpu_hours)
        found[f"hours on {params.training.ranks} GPUs"] = number(one.gpu_hours / params.training.ranks)
    if one.price is not None:
        found[f"price at {prices.gpu_rate:g} for a GPU-hour"] = number(one.price)
    return found


def work_lines(works: list[Work] | str, prices: Prices) -> list[str]:
    """Return what encoding and sampling cost on the devices that are named, and what that supposes."""
    if isinstance(works, str):
        return ["", f"encoding and sampling: unknown, for {works}"]
    lines = []
    for one in works:
        said = ", ".join(f"{section}.precision {precision}" for section, precision in one.precision.items())
        kind = "GPU-hours" if one.device == "cuda" else "hours on the CPU"
        cells = {f"TFLOP of a {one.item}, {part}": flops / 1e12 for part, flops in one.parts.items()}
        cells[f"hours at 1 PFLOP/s, {one.items:,} {one.item}s"] = one.flops / 1e15 / 3600
        if (hours := one.hours(prices)) is not None:
            cells[f"{kind} at {prices.inference_tflops or prices.tflops:g} TFLOP/s"] = hours
        if (price := one.price(prices)) is not None:
            cells[f"price at {prices.gpu_rate:g} for a GPU-hour"] = price
        lines += ["", f"{one.name} on {one.device}: {said}"]
        lines += [f"{label:50}{number(value):>14}" for label, value in cells.items()]
    if works:
        lines += [
            "Executed FLOP of matrix products, convolutions and attention. Hours: of one device that sustains the rate",
            "all the time, and so never waits for videos to be decoded (sandbox.workers) or files to be written.",
            "A GPU is taken to sustain --tflops here too: --inference-tflops says otherwise, `stiv doctor` measures.",
        ]
    return lines


def number(value: float) -> str:
    """Return a count as it is, and another number with three digits or all before the point."""
    is_whole = isinstance(value, int) or abs(value) >= 100
    return f"{value:,.0f}" if is_whole else f"{value:.3g}"


def notes(prices: Prices, params: Params) -> list[str]:
    """Say what the figures mean and leave out."""
    training = params.training
    again = ", and forward once more for activation checkpointing" if training.activation_checkpointing else ""
    lines = [
        "The order of samples runs on over the ends of epochs: no batch is partial, none is padded.",
        f"FLOP: executed, of matrix products and attention, forward and backward{again}.",
        f"A rank is one GPU, or one process on CPU. {training.ranks} ranks, ZeRO-{training.zero_stage}, "
        f"{training.precision}, {training.optimizer.kind}. Not counted:",
        "temporary buffers of kernels and of communication, fragmentation.",
    ]
    if training.offload != "none":
        lines.append(f"training.offload is {training.offload}: {memory_estimate.offloaded(training)}.")
    if training.temporal_mask_ratio:
        lines.append("training.temporal_mask_ratio is not counted: FLOP, memory and hours are lower with it.")
    if params.model.image_condition != "replacement":
        lines.append("Clean frames that cross-attention sees are not counted: FLOP, memory and hours are higher.")
    if prices.tflops is None:
        lines.append("GPU-hours: unknown without --tflops, what one GPU sustains; a price also needs --gpu-rate.")
    return lines
