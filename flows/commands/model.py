"""`stiv model`: what a model of some size costs, before anyone pays for it."""

import json as jsonlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from flows.params import Params, load_params
from stiv_model.monitoring import costs, memory_estimate
from stiv_model.monitoring.costs import SampleCost, SampleShape
from stiv_model.monitoring.memory_estimate import GpuBytes
from stiv_model.network.transformer import StivTransformer

SIZES = Path("infra/params")


class Case(NamedTuple):
    pixels: int
    frames: int
    mask_ratio: float


def model(
    size: str,
    /,
    *,
    pixels: Sequence[int] = (256, 512),
    frames: Sequence[int] = (1, 20, 40),
    world: Sequence[int] = (1, 8, 64),
    downsampling: int = 8,
    json: bool = False,
) -> None:
    """Count the parameters, FLOPs and memory of a model, without running it.

    FLOPs and activations are those of one sample, masked as the recipes of the file mask it. Memory per GPU is that of
    ZeRO-3, in the precision and with the optimizer of the file.

    Args:
        size: XL, XXL or M of the paper (infra/params/), or a params file.
        pixels: Heights (and widths) of the videos to count for, pixels.
        frames: Numbers of latent frames to count for; 1 is an image.
        world: Numbers of GPUs that share a model, to count memory per GPU for.
        downsampling: Pixels that the VAE turns into one latent, on each side.
        json: Print JSON instead of text.

    examples:
      stiv model XL
      stiv model M --pixels 512 --frames 20 --world 64 128 256
      stiv model params.yaml --pixels 64 --frames 1 8 --json
    """
    check(pixels, frames, world, downsampling)
    path = find(size)
    params = load_params(path)
    models = {"image": costs.build_on_meta(params.model, False), "video": costs.build_on_meta(params.model, True)}
    ratios = sorted({0.0, max((recipe.mask_ratio for recipe in params.train.values()), default=0.0)})
    cases = [Case(side, length, ratio) for side in pixels for length in frames for ratio in ratios]
    bar = tqdm(cases, desc="counting", file=sys.stderr, leave=False)
    samples = {case: sample(params, case, downsampling) for case in bar}
    per_gpu = {
        kind: {wide: memory_estimate.per_gpu(whole, params.training, wide) for wide in world}
        for kind, whole in models.items()
    }
    if json:
        print(jsonlib.dumps({"params_file": str(path), **counts(models), **figures(samples, per_gpu)}, indent=2))
        return
    title = f"{size} ({path}): {params.model.depth} blocks and {params.model.unmasked_depth} extra ones on all tokens"
    tables = (parameter_table(counts(models)), sample_table(samples, params), gpu_table(per_gpu, params))
    print("\n\n".join("\n".join(lines) for lines in ([title], *tables)))


def check(pixels: Sequence[int], frames: Sequence[int], world: Sequence[int], downsampling: int) -> None:
    """Refuse what cannot be counted.

    Raises:
        ValueError: the option, its value and the remedy.
    """
    options = {"pixels": pixels, "frames": frames, "world": world, "downsampling": [downsampling]}
    for option, values in options.items():
        if min(values) < 1:
            raise ValueError(f"--{option} is {min(values)}: it starts at 1")
    for side in pixels:
        if side % downsampling:
            raise ValueError(
                f"--pixels is {side}, which does not divide by --downsampling {downsampling}: "
                f"use a multiple of {downsampling}"
            )


def find(size: str) -> Path:
    """Return the params file of a size.

    Raises:
        ValueError: there is neither such a size nor such a file.
    """
    for path in (SIZES / f"{size.lower()}-256.yaml", Path(size)):
        if path.is_file():
            return path
    known = sorted(path.stem.removesuffix("-256").upper() for path in SIZES.glob("*-256.yaml"))
    raise ValueError(f"{size} is neither a size that {SIZES} holds ({', '.join(known) or 'none'}) nor a params file")


def sample(params: Params, case: Case, downsampling: int) -> SampleCost:
    side = case.pixels // downsampling
    shape = SampleShape(case.frames, side, side, params.text.tokens)
    return costs.sample_cost(params.model, params.training, case.frames > 1, shape, case.mask_ratio)


def counts(models: dict[str, StivTransformer]) -> dict[str, Any]:
    """Return the numbers of parameters. `params_*` leave `costs.REST` out, as the paper's labels do."""
    found: dict[str, Any] = {"parameters": {}}
    for kind, whole in models.items():
        counts = costs.count_parameters(whole)
        extra = sum(parameter.numel() for parameter in whole.unmasked_blocks.parameters())
        labelled = counts.total() - counts[costs.REST]
        found["parameters"][kind] = {part: counts[part] for part in (*costs.PARTS.values(), costs.REST)}
        found |= {
            f"params_{kind}": labelled,
            f"params_{kind}_without_extra_blocks": labelled - extra,
            f"params_{kind}_with_rest": counts.total(),
        }
    return found


def figures(samples: dict[Case, SampleCost], per_gpu: dict[str, dict[int, GpuBytes]]) -> dict[str, Any]:
    """Return FLOPs, and memory in bytes, for --json."""
    flops: list[dict[str, Any]] = []
    activations: list[dict[str, Any]] = []
    for case, cost in samples.items():
        by_name = cost._asdict()
        for rows, ending in ((flops, "_flops"), (activations, "_bytes")):
            own = {name.removesuffix(ending): value for name, value in by_name.items() if name.endswith(ending)}
            rows.append({**case._asdict(), "tokens": cost.tokens, **own})
    gpus = {
        kind: [{"world": world, **part._asdict(), "sum": sum(part)} for world, part in parts.items()]
        for kind, parts in per_gpu.items()
    }
    return {"flops": flops, "memory": {"activations": activations, "per_gpu": gpus}}


def parameter_table(found: dict[str, Any]) -> list[str]:
    def line(name: str, image: int, video: int) -> str:
        return f"{name:32}{image / 1e6:12,.1f}{video / 1e6:12,.1f}"

    image, video = found["parameters"]["image"], found["parameters"]["video"]
    totals = {"all": "_with_rest", "blocks and AdaLN": "", "  without the extra blocks": "_without_extra_blocks"}
    return [
        f"{'parameters, millions':32}{'image':>12}{'video':>12}",
        *(line(part, image[part], video[part]) for part in image),
        *(line(name, found[f"params_image{end}"], found[f"params_video{end}"]) for name, end in totals.items()),
        "Rest: patches, text projection, timestep, micro-conditions, last layer. The paper's labels leave it out:",
        "600M (XL) and 1.5B (XXL) are the image model's, 8.7B (M) is the video model's without the extra blocks.",
    ]


def sample_table(samples: dict[Case, SampleCost], params: Params) -> list[str]:
    lines = [
        f"one sample, {params.text.tokens} text tokens, {params.training.precision}",
        f"{'':26}{'TFLOP':>18}{'':>15}{'activations, GB':>24}",
        f"{'pixels':>6}{'frames':>7}{'tokens':>7}{'mask':>6}{'forward':>10}{'training':>10}{'checkpointed':>13}"
        f"{'stored':>10}{'checkpointed':>14}",
    ]
    for case, cost in samples.items():
        lines.append(
            f"{case.pixels:6}{case.frames:7}{cost.tokens:7}{case.mask_ratio:6.0%}"
            f"{cost.forward_flops / 1e12:10.3f}{cost.training_flops / 1e12:10.3f}"
            f"{cost.checkpointed_training_flops / 1e12:13.3f}"
            f"{cost.activation_bytes / 1e9:10.3f}{cost.checkpointed_activation_bytes / 1e9:14.3f}"
        )
    lines += [
        "Training: forward and backward. Checkpointed: with activation checkpointing. FLOPs: of matrix products and of",
        "attention, multiplication and addition being two. Stored: by forward for backward, as flash attention does.",
    ]
    if params.model.image_condition != "replacement":
        lines.append("Clean frames that cross-attention would see are not counted.")
    return lines


def gpu_table(per_gpu: dict[str, dict[int, GpuBytes]], params: Params) -> list[str]:
    training = params.training
    return [
        f"one of `world` GPUs under ZeRO-{training.zero_stage}, {training.precision}, {training.optimizer.kind}, GB; "
        f"training.offload is {training.offload}: {memory_estimate.offloaded(training)}",
        f"{'':7}" + "".join(f"{column:>12}" for column in ("world", *GpuBytes._fields, "sum")),
        *(
            f"{kind:7}{world:12}" + "".join(f"{value / 1e9:12.3f}" for value in (*part, sum(part)))
            for kind, parts in per_gpu.items()
            for world, part in parts.items()
        ),
        "Optimizer: float32 weights and moments. Gathered: parameters that are whole for a while, two blocks and all",
        "outside of blocks. Buckets: gradients of one block on their way. Update: float32 gradients of one sub-group.",
        "Not counted: activations (above, per sample), temporary buffers, fragmentation, VAE and text encoder.",
    ]
