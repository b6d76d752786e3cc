"""What one process reaches: optimizer steps of one recipe, at full size on one GPU, at embedded size on one CPU core.

    python benchmarks/mfu.py --params infra/params/xl-256.yaml --recipe t2v --micro-batch 8 --json xl.json
    python benchmarks/mfu.py --params infra/params/xl-256.yaml --recipe unmask_sft --micro-batch 4
    python benchmarks/mfu.py --params infra/params/m-256.yaml --recipe t2v --micro-batch 1 --offload cpu --checkpointing
    python benchmarks/mfu.py --device cpu --micro-batch 8

The path is that of `stiv train`: the model built in pieces under ZeRO, its optimizer, the recipe's losses, on made-up
latents. MFU counts the FLOPs that are executed (what masking drops is not) against a measured matrix product of the
same precision, and against --peak-tflops where that is given.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from flows.params import Params, load_params
from stiv_model.distributed import deepspeed_engine
from stiv_model.distributed.local_ranks import environment as rank_environment
from stiv_model.latents import data_plan
from stiv_model.monitoring import costs
from stiv_model.network.conditions import MICRO_CONDITIONS, Text
from stiv_model.training.loss import Draws, draw, losses
from stiv_model.weights import initialisation
from tasks.training.launch import environment

VAE_FACTOR = 8  # pixels per latent, on each side


def made_up(params: Params, samples: int, frames: int, device: torch.device) -> tuple[Any, Text]:
    """Return a batch of latents and features of the right shapes, and the null text."""
    from stiv_model.latents.dataset import Batch

    side = params.latents.height // VAE_FACTOR, params.latents.width // VAE_FACTOR
    width = params.model.text_width
    text = Text(
        torch.randn(samples, params.text.tokens, width, device=device),
        torch.ones(samples, params.text.tokens, dtype=torch.bool, device=device),
        torch.randn(samples, width, device=device),
    )
    latents = torch.randn(samples, frames, params.model.latent_channels, *side, device=device)
    micro = torch.ones(samples, len(MICRO_CONDITIONS), device=device)
    return Batch(["made up"] * samples, latents, text, micro), Text(*(part[:1] for part in text))


def run(params: Params, options: argparse.Namespace) -> dict[str, Any]:
    """Take the steps and return what they took."""
    recipe = params.train[options.recipe].model_copy(update={"batch": options.micro_batch})
    training = params.training.model_copy(
        update={"ranks": 1, "nodes": 1, "sequence_ranks": 1, "accumulation": 1, "device": options.device}
        | {"offload": options.offload, "activation_checkpointing": options.checkpointing, "compile": options.compile}
        | ({"precision": "float32"} if options.device == "cpu" else {})
    )
    data_plan.check(options.recipe, recipe, params.model, training)
    deepspeed_engine.start(training)
    device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
    model = deepspeed_engine.build(params.model, recipe.frames > 1, recipe, training)
    model.activation_checkpointing = training.activation_checkpointing
    if training.compile:
        model.compile_blocks()
    shared = deepspeed_engine.engine(model, recipe, training)
    deepspeed_engine.start_from(shared, partial(initialisation.fill, params.model, model.is_video, training.seed))

    batch, null_text = made_up(params, options.micro_batch, recipe.frames, device)
    shape = costs.SampleShape(recipe.frames, *batch.latents_BFCHW.shape[3:], params.text.tokens)
    sizes = (recipe.frames, *batch.latents_BFCHW.shape[2:])
    places = sizes[-1] * sizes[-2] // params.model.spatial_patch**2
    cost = costs.sample_cost(params.model, training, recipe.frames > 1, shape, recipe.mask_ratio)
    flops = cost.checkpointed_training_flops if training.activation_checkpointing else cost.training_flops
    seconds, losses_seen = [], []
    for step in tqdm(range(options.warmup + options.steps), unit="step"):
        if options.device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        drawn = draw(list(range(options.micro_batch)), sizes, places, recipe, training)
        loss = losses(shared, batch, Draws(*(part.to(device) for part in drawn)), null_text, recipe, training).mean()
        shared.backward(loss)
        shared.step()
        losses_seen.append(loss.item())  # waits for the device
        if step >= options.warmup:
            seconds.append(time.perf_counter() - started)
    peak = costs.matmul_peak(device, getattr(torch, training.precision))
    reached = flops * options.micro_batch / statistics.median(seconds)
    found = {
        "device": torch.cuda.get_device_name(device) if options.device == "cuda" else "cpu",
        "params": str(options.params),
        "recipe": options.recipe,
        "parameters": sum(getattr(part, "ds_numel", part.numel()) for part in shared.module.parameters()),
        "micro_batch": options.micro_batch,
        "precision": training.precision,
        "step_seconds": {"median": statistics.median(seconds), "low": min(seconds), "high": max(seconds)},
        "tflops": reached / 1e12,
        "mfu_of_measured_matmul": reached / peak,
        "mfu_of_peak": reached / (options.peak_tflops * 1e12) if options.peak_tflops else "no --peak-tflops given",
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if options.device == "cuda" else "not measured",
        "losses": losses_seen,
    }
    deepspeed_engine.stop(shared)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--recipe", default="t2v")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--micro-batch", type=int, default=4, help="samples at once")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--offload", choices=["none", "cpu"], default="none")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--peak-tflops", type=float, help="of the device by its data sheet, such as 989 for an H100 in bfloat16"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, and torch finds no GPU here: --device cpu measures one core at embedded size")
    params = load_params(options.params)
    os.environ |= environment(params.training.model_copy(update={"device": options.device, "nodes": 1, "ranks": 1}))
    torch.set_num_threads(1) if options.device == "cpu" else None
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= rank_environment({}, rank=0, ranks=1, folder=Path(folder))
        found = run(params, options)
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
