"""How fast our model is against the nearest public one, diffusers' LatteTransformer3DModel (PixArt blocks with
factorised attention in space and time): same width, layers, heads, latents, tokens, text and dtype, batch 1.

    python benchmarks/model.py --rounds 5 --json model.json
    python benchmarks/model.py --modes float32                             # without compilation: a few minutes
    python benchmarks/model.py --device cuda --size xl --modes bfloat16_compiled

The models take turns, in the opposite order every other round; a ratio is taken within a round. Clock: CPU seconds of
this process on one thread, or CUDA events. A step is forward, loss and backward, without optimizer. FLOPs are counted
as executed: matrix products and attention. Peak memory: of one step in a fresh process, above the loaded model.
Ours are `unmasked` (as many blocks as Latte has layers), `masked50` (half of the places dropped, two more blocks on
all) and `unmasked_extra` (the same blocks, nothing dropped). Weights are random, none is zero. `bfloat16` is of the
weights too, as in training; compiled: both models, block by block, and the compiled results must agree with eager.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from contenders import BUILD, SIZES, Runner, Size, build, formula
from diffusers import LatteTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

MODES = ("float32", "float32_compiled", "bfloat16", "bfloat16_compiled")
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
_FLASH_FLOPS = {  # torch counts those of CUDA only
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, q, k, v, *_, **__: sdpa_backward_flop_count(gradient, q, k, v)
    ),
}
TIMED = ("latte", "unmasked", "masked50", "unmasked_extra")


def seconds(call: Callable[[], Any], device: str) -> float:
    """Return the time of one call: of a GPU by its own events, else CPU seconds of this process."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000
    begun = time.process_time()
    call()
    return time.process_time() - begun


def flops(runner: Runner) -> dict[str, int]:
    """Return the FLOPs that forward, and a whole step, execute."""
    counts = {}
    for what, call in (("forward", runner.infer), ("step", runner.step)):
        with FlopCounterMode(display=False, custom_mapping=_FLASH_FLOPS) as counter:
            call()
        counts[what] = counter.get_total_flops()
    return counts


def compile_blocks(runner: Runner) -> None:
    """Compile both models block by block, and check that ours gives what it gave before.

    Raises:
        ValueError: compiled and eager differ by more than rounding.
    """
    if isinstance(runner.model, LatteTransformer3DModel):
        for block in (*runner.model.transformer_blocks, *runner.model.temporal_transformer_blocks):
            block.forward = torch.compile(block.forward, dynamic=False)
        return
    eager = runner.infer()
    runner.model.compile_blocks()
    difference = ((runner.infer() - eager).norm() / eager.norm()).item()
    if difference > TOLERANCE[eager.dtype]:
        raise ValueError(
            f"compiled and eager differ by {difference:.1e} of the length, {eager.dtype}: more than rounding"
        )


def race(size: Size, device: str, mode: str, rounds: int) -> dict[str, Any]:
    """Return the seconds of all models in all rounds, their FLOPs, and the peak of matrix products meanwhile."""
    dtype = getattr(torch, mode.split("_")[0])
    runners = {name: build(name, size, device, dtype) for name in TIMED}
    counts = {name: flops(runner) for name, runner in runners.items()}
    if abs(counts["unmasked"]["forward"] / formula(size) - 1) > 0.01:
        raise ValueError(f"forward executes {counts['unmasked']['forward']} FLOPs, by the formula {formula(size)}")
    if mode.endswith("compiled"):
        for runner in runners.values():
            compile_blocks(runner)
    a, b = (torch.randn(2048, 2048, device=device, dtype=dtype) for _ in range(2))
    times: dict[str, dict[str, list[float]]] = {name: {"forward": [], "step": []} for name in TIMED}
    peaks = []
    for number in range(-1, rounds):  # the first one warms up
        peak = 2 * 2048**3 / seconds(lambda: torch.mm(a, b), device)
        for name in TIMED if number % 2 else reversed(TIMED):
            took = {"forward": seconds(runners[name].infer, device), "step": seconds(runners[name].step, device)}
            if number >= 0:
                for what, value in took.items():
                    times[name][what].append(value)
            runners[name].model.zero_grad(set_to_none=True)
        peaks += [peak] if number >= 0 else []
    return {"seconds": times, "flops": counts, "matmul_flops_per_second": summary(peaks)}


def memory(name: str, size: str, device: str) -> int:
    """Return the bytes that one step of a model takes above the loaded model, in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", name, "--size", size, "--device", device]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def memory_here(name: str, size: Size, device: str) -> int:
    runner = build(name, size, device, torch.float32)
    if device == "cuda":
        loaded = torch.cuda.memory_allocated()
        runner.step()
        return torch.cuda.max_memory_allocated() - loaded
    loaded = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    runner.step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - loaded


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "rounds": len(values)}


def ratios(result: dict[str, Any], mode: str) -> dict[str, dict[str, float]]:
    """Return the ratios per round of one mode; float32 is not named."""
    suffix = (
        "" if mode == "float32" else "_" + mode.replace("bfloat16_compiled", "bf16").replace("bfloat16", "bf16_eager")
    )

    def over(a: str, b: str, what: str, scale: float = 1.0) -> dict[str, float]:
        times = result["seconds"]
        return summary([scale * x / y for x, y in zip(times[a][what], times[b][what], strict=True)])

    figures = {}
    for what in ("step", "forward"):
        prefix = "" if what == "step" else "forward_"
        for name in ("unmasked", "masked50"):
            figures[f"{what}_over_latte_{name}{suffix}"] = over(name, "latte", what)
            same = result["flops"]["latte"][what] / result["flops"][name][what]
            end = suffix if name == "unmasked" else f"_{name}{suffix}"
            figures[f"{prefix}time_per_flop_over_latte{end}"] = over(name, "latte", what, same)
        figures[f"{prefix}masked_over_unmasked{suffix}"] = over("masked50", "unmasked_extra", what)
    return figures


def table(result: dict[str, Any], mode: str) -> None:
    peak = result["matmul_flops_per_second"]["median"]
    print(f"\n{mode}; peak of torch.mm, 2048 x 2048: {peak / 1e9:.0f} GFLOP/s")
    print(
        f"{'':16}{'':9}{'samples/s':>10}{'seconds':>10}{'over latte':>12}  {'[low, high]':15}{'GFLOP':>8}{'of peak':>9}"
    )
    for name in TIMED:
        for what in ("forward", "step"):
            mine, peer = result["seconds"][name][what], result["seconds"]["latte"][what]
            ratio, median = summary([a / b for a, b in zip(mine, peer, strict=True)]), statistics.median(mine)
            count = result["flops"][name][what]
            spread = f"[{ratio['low']:.3f}, {ratio['high']:.3f}]"
            print(
                f"{name:16}{what:9}{1 / median:10.3f}{median:10.3f}{ratio['median']:12.3f}  {spread:15}"
                f"{count / 1e9:8.1f}{count / median / peak:9.1%}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["float32", "bfloat16_compiled"])
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--memory-of", choices=BUILD, help="only print the bytes of one step of this model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = SIZES[options.size]
    if options.memory_of:
        print(memory_here(options.memory_of, size, options.device))
        return

    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    figures: dict[str, Any] = {"size": options.size, "device": device, "torch": torch.__version__, "threads": 1}
    used = {name: memory(name, options.size, options.device) for name in BUILD}
    print("peak memory of a step, float32, MB above the loaded model:")
    for name, count in used.items():
        print(f"{name:24}{count / 1e6:8.0f}{count / used['latte']:8.3f}")
    figures["memory_over_latte"] = summary([used["masked50"] / used["latte"]])
    figures["memory_over_latte_checkpointed"] = summary([used["masked50_checkpointed"] / used["latte"]])
    figures["memory_bytes"] = used
    for mode in options.modes:
        figures[mode] = race(size, options.device, mode, options.rounds)
        table(figures[mode], mode)
        figures |= ratios(figures[mode], mode)
    print()
    for name, value in figures.items():
        if isinstance(value, dict) and "median" in value:
            print(f"{name:48}{value['median']:7.3f}  [{value['low']:.3f}, {value['high']:.3f}]")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
